//go:build linux && (amd64 || arm64)

package seccomp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The test binary is its own traced program: CALLOUTD_HELPER names what to do.
const helperEnv = "CALLOUTD_HELPER"

func TestMain(m *testing.M) {
	if h := os.Getenv(helperEnv); h != "" {
		helpers[h](os.Args[1:])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func say(v ...any) { fmt.Println(v...) }

// name prints an errno in a way that says 0 for success.
func name(e unix.Errno) string {
	if e == 0 {
		return "ok"
	}
	if e == unix.EOPNOTSUPP { // It has two names.
		return "EOPNOTSUPP"
	}
	if n := unix.ErrnoName(e); n != "" {
		return n
	}
	return strconv.Itoa(int(e))
}

func newSocket(domain, kind int) int {
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	return fd
}

func testSockaddr(domain int, to netip.AddrPort) []byte {
	return putSockaddr(make([]byte, sockaddr6Len), domain, to)
}

func domainOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func must(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func dial(to netip.AddrPort) (int, unix.Errno) {
	fd := newSocket(domainOf(to.Addr()), unix.SOCK_STREAM)
	return fd, sysConnect(fd, testSockaddr(domainOf(to.Addr()), to))
}

func read(fd int) string {
	b := make([]byte, 64)
	n, _ := unix.Read(fd, b)
	return string(b[:max(n, 0)])
}

func rawSocket(domain, kind, proto int) unix.Errno {
	_, _, e := unix.RawSyscall(unix.SYS_SOCKET, uintptr(domain), uintptr(kind), uintptr(proto))
	return e
}

var helpers = map[string]func(args []string){
	// dial: connect to each address and print what came back.
	"dial": func(args []string) {
		for _, a := range args {
			fd, e := dial(must(a))
			say(name(e), read(fd))
		}
	},
	"nonblocking": func(args []string) {
		to := must(args[0])
		fd := newSocket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK)
		say(name(sysConnect(fd, testSockaddr(unix.AF_INET, to))))
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		_, _ = unix.Poll(p, 5000)
		say(read(fd))
		say(name(sysConnect(fd, testSockaddr(unix.AF_INET, to))))
	},
	"states": func(args []string) {
		to := must(args[0])
		sa := testSockaddr(unix.AF_INET, to)
		fd, e := dial(to)
		say("first", name(e))
		say("again", name(sysConnect(fd, sa)))
		say("unspec", name(sysConnect(fd, make([]byte, 16))))
		say("reuse", name(sysConnect(fd, sa)))
		fresh := func() int { return newSocket(unix.AF_INET, unix.SOCK_STREAM) }
		say("short", name(sysConnect(fresh(), sa[:8])))
		say("empty", name(sysConnect(fresh(), sa[:0])))
		say("long", name(sysConnect(fresh(), make([]byte, 129))))
		say("family", name(sysConnect(fresh(), testSockaddr(unix.AF_INET6, to))))
		_, _, e = unix.Syscall(unix.SYS_CONNECT, uintptr(fresh()), 8, 16)
		say("fault", name(e))
		say("badfd", name(sysConnect(999, sa)))
		f, _ := unix.Open("/dev/null", unix.O_RDONLY, 0)
		say("notsock", name(sysConnect(f, sa)))
		v6 := newSocket(unix.AF_INET6, unix.SOCK_STREAM)
		_ = unix.SetsockoptInt(v6, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
		say("v6only", name(sysConnect(v6, testSockaddr(unix.AF_INET6, to))))
		l := fresh()
		_ = unix.Listen(l, 1)
		say("listening", name(sysConnect(l, sa)))
		udp := newSocket(unix.AF_INET, unix.SOCK_DGRAM)
		say("udp", name(sysConnect(udp, sa)))
		refused := fresh()
		closed := testSockaddr(unix.AF_INET, netip.AddrPortFrom(to.Addr(), 1))
		say("refused", name(sysConnect(refused, closed)))
	},
	"unix": func(args []string) {
		c, err := net.Dial("unix", args[0])
		if err != nil {
			say(err)
			return
		}
		b := make([]byte, 64)
		n, _ := c.Read(b)
		say(string(b[:n]))
	},
	"threads": func(args []string) {
		var ok atomic.Int32
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				runtime.LockOSThread()
				for range 20 {
					fd, e := dial(must(args[0]))
					if e == 0 && read(fd) == "proxy" {
						ok.Add(1)
					}
					unix.Close(fd)
				}
			})
		}
		wg.Wait()
		say(ok.Load())
	},
	"refused": func(args []string) {
		for _, nr := range []uintptr{unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER} {
			_, _, e := unix.RawSyscall(nr, 0, 0, 0)
			say("uring", name(e))
		}
		to := testSockaddr(unix.AF_INET, must(args[0]))
		fd := newSocket(unix.AF_INET, unix.SOCK_STREAM)
		_, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&to[0])), 1, unix.MSG_FASTOPEN, uintptr(unsafe.Pointer(&to[0])), 16)
		say("sendto", name(e))
		var m [2]unix.Msghdr
		m[0].Name, m[0].Namelen = &to[0], 16
		_, _, e = unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&m)), unix.MSG_FASTOPEN)
		say("sendmsg", name(e))
		_, _, e = unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&m)), 1, unix.MSG_FASTOPEN, 0, 0)
		say("sendmmsg", name(e))
		for _, domain := range []int{unix.AF_INET, unix.AF_INET6} {
			say("mptcp", name(rawSocket(domain, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)))
			say("sctp", name(rawSocket(domain, unix.SOCK_SEQPACKET, 0)))
			say("tcp", name(rawSocket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)))
			say("udp", name(rawSocket(domain, unix.SOCK_DGRAM, 0)))
		}
		say("smc", name(rawSocket(unix.AF_SMC, unix.SOCK_STREAM, 0)))
		say("rds", name(rawSocket(unix.AF_RDS, unix.SOCK_SEQPACKET, 0)))
		say("unix", name(rawSocket(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)))
		if foreignNR == 0x40000000 {
			_, _, e = unix.RawSyscall(foreignNR|unix.SYS_GETPID, 0, 0, 0)
			say("x32", name(e))
		}
	},
	"exit": func(args []string) { n, _ := strconv.Atoi(args[0]); os.Exit(n) },
	"die":  func([]string) { _ = unix.Kill(os.Getpid(), unix.SIGKILL); select {} },
	"term": func([]string) {
		c := make(chan os.Signal, 1)
		signal.Notify(c, unix.SIGTERM)
		say("ready")
		<-c
		os.Exit(9)
	},
	// orphan: leave a grandchild that dials after the parent is gone.
	"orphan": func(args []string) {
		c := exec.Command(os.Args[0], args...)
		c.Env = append(os.Environ(), helperEnv+"=late")
		c.Stdout = os.Stdout
		c.SysProcAttr = &unix.SysProcAttr{Setsid: true}
		if err := c.Start(); err != nil {
			panic(err)
		}
		os.Exit(7)
	},
	"late": func(args []string) {
		time.Sleep(200 * time.Millisecond)
		fd, e := dial(must(args[0]))
		say("late", name(e), read(fd))
	},
	"sleep": func([]string) { say("ready"); time.Sleep(time.Minute) },
	// race: connect an AF_UNIX socket while another thread puts a TCP socket in
	// its place. Prints how often that one got connected.
	"race": func(args []string) {
		tries, _ := strconv.Atoi(args[1])
		usa := unixAddr(filepath.Join(os.TempDir(), "calloutd-no-such-socket"))
		tsa := testSockaddr(unix.AF_INET, must(args[0]))
		// Both in one buffer length: the kernel reads the address when it runs.
		addr := make([]byte, len(usa))
		u := newSocket(unix.AF_UNIX, unix.SOCK_STREAM)
		victim, _ := unix.Dup(u)
		tcp := newSocket(unix.AF_INET, unix.SOCK_STREAM)
		var turn, stop atomic.Bool
		go func() {
			runtime.LockOSThread()
			for !stop.Load() {
				if turn.CompareAndSwap(true, false) {
					for range spin() {
					}
					_ = unix.Dup3(tcp, victim, 0)
				}
			}
		}()
		direct := 0
		copy(addr, tsa) // The unix socket refuses it; the TCP socket would take it.
		for range tries {
			_ = unix.Dup3(u, victim, 0)
			turn.Store(true)
			sysConnect(victim, addr[:16])
			for turn.Load() {
				runtime.Gosched()
			}
			if _, err := unix.Getpeername(tcp); err == nil {
				direct++
				unix.Close(tcp)
				tcp = newSocket(unix.AF_INET, unix.SOCK_STREAM)
			}
		}
		stop.Store(true)
		say(direct)
	},
	"alarm": func(args []string) { // a blocked connect under a storm of SIGALRM
		c := make(chan os.Signal, 1)
		signal.Notify(c, unix.SIGALRM)
		it := [2]unix.Timeval{{Usec: 1000}, {Usec: 1000}}
		_, _, _ = unix.RawSyscall(unix.SYS_SETITIMER, 0, uintptr(unsafe.Pointer(&it)), 0)
		ok := 0
		for range 20 {
			fd, e := dial(must(args[0]))
			if e == 0 && read(fd) == "proxy" {
				ok++
			} else {
				say(name(e))
			}
			unix.Close(fd)
		}
		say(ok)
	},
	"nested": func([]string) {
		_, err := Run(context.Background(), Options{ALE: permit}, exec.Command("/nonexistent"))
		say(err)
	},
	// restart: a thread's own signal, with SA_RESTART, during a slow connect.
	"restart": func(args []string) {
		c := make(chan os.Signal, 9)
		signal.Notify(c, unix.SIGUSR1)
		runtime.LockOSThread()
		tid := unix.Gettid()
		go func() {
			for range 3 {
				time.Sleep(250 * time.Millisecond)
				_ = unix.Tgkill(os.Getpid(), tid, unix.SIGUSR1)
			}
		}()
		_, e := dial(must(args[0]))
		say(name(e), len(c) >= 2)
	},
	"bench": func(args []string) {
		n, _ := strconv.Atoi(args[1])
		to := must(args[0])
		t := time.Now()
		for range n {
			fd, e := dial(to)
			if e != 0 {
				panic(e)
			}
			_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			unix.Close(fd)
		}
		say(time.Since(t).Nanoseconds())
	},
}

var seed uint32 = 1

func spin() int {
	seed = seed*1664525 + 1013904223
	return int(seed>>16) % 60000
}

func unixAddr(path string) []byte {
	b := make([]byte, 2, 110)
	header := unix.AF_UNIX
	b[0] = byte(header)
	return append(append(b, path...), 0)
}
