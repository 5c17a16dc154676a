//go:build linux && (amd64 || arm64)

package seccomp

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/enforce/internal/bypass"
	"github.com/calloutd/calloutd/host/enforce/internal/doomed"
	"github.com/calloutd/calloutd/host/fwps"
)

// Each test here is a way round the decision that a program tries in earnest.
// The same program, not supervised, shows that the way exists.

func init() {
	programs["uring"] = func(args []string) { say(uringConnect(sockaddrOf(must(args[0])))) }
	programs["fastopen"] = func(args []string) {
		to := sockaddrOf(must(args[0]))
		msg := unix.Mmsghdr{Hdr: unix.Msghdr{Name: &to[0], Namelen: uint32(len(to)), Iov: &unix.Iovec{Base: &to[0], Len: 1}, Iovlen: 1}}
		for _, send := range []struct {
			name string
			call func(fd uintptr) unix.Errno
		}{
			{"sendto", func(fd uintptr) unix.Errno {
				_, _, e := unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&to[0])), 1, unix.MSG_FASTOPEN, uintptr(unsafe.Pointer(&to[0])), uintptr(len(to)))
				return e
			}},
			{"sendmsg", func(fd uintptr) unix.Errno {
				_, _, e := unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&msg.Hdr)), unix.MSG_FASTOPEN)
				return e
			}},
			{"sendmmsg", func(fd uintptr) unix.Errno {
				_, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&msg)), 1, unix.MSG_FASTOPEN, 0, 0)
				return e
			}},
		} {
			fd := newSocket(unix.AF_INET, unix.SOCK_STREAM)
			say(send.name, name(send.call(uintptr(fd))))
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
		}
	}
	// deferred: TCP_FASTOPEN_CONNECT lets connect() only note the address.
	programs["deferred"] = func(args []string) {
		fd := newSocket(unix.AF_INET, unix.SOCK_STREAM)
		check(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1))
		say("connect", name(sysConnect(fd, sockaddrOf(must(args[0])))))
		_, err := unix.Write(fd, []byte("x"))
		say("write", err == nil)
	}
	programs["x32"] = func(args []string) {
		sa := sockaddrOf(must(args[0]))
		_, _, e := unix.RawSyscall(foreignNR|unix.SYS_CONNECT, uintptr(newSocket(unix.AF_INET, unix.SOCK_STREAM)), uintptr(unsafe.Pointer(&sa[0])), 16)
		say(name(e))
	}
	programs["sockets"] = func([]string) {
		for _, s := range []struct {
			name                   string
			domain, kind, protocol int
		}{
			{"mptcp", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP},
			{"mptcp6", unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_MPTCP},
			{"sctp", unix.AF_INET, unix.SOCK_SEQPACKET, 0},
			{"smc", unix.AF_SMC, unix.SOCK_STREAM, 0},
			{"raw tcp", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP},
			{"raw6", unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_RAW},
			{"packet", unix.AF_PACKET, unix.SOCK_RAW, 0},
			{"vsock", unix.AF_VSOCK, unix.SOCK_STREAM, 0},
		} {
			_, err := unix.Socket(s.domain, s.kind, s.protocol)
			say(s.name, name(errno(err)))
		}
	}
	programs["flip"] = flip
	programs["swap unix"] = swapUnix
	programs["swap tcp"] = swapTCP
	// namespace: dial in a user and network namespace of its own.
	programs["namespace"] = func(args []string) {
		c := helper("namespaced", args...)
		c.Stdout = os.Stdout
		c.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}}
		check(c.Run())
	}
	programs["namespaced"] = func(args []string) {
		raw, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
		say("raw", raw < 0, name(errno(err)))
		fd := newSocket(unix.AF_INET, unix.SOCK_STREAM)
		say("dial", name(sysConnect(fd, sockaddrOf(must(args[0])))))
	}
	// inherited: connect descriptor 3, then disconnect it and connect it again.
	programs["inherited"] = func(args []string) {
		for _, a := range args {
			say(name(sysConnect(3, sockaddrOf(must(a)))), read(3))
			say(name(sysConnect(3, make([]byte, 16))))
		}
	}
	// passed: receive a socket on descriptor 3 and connect that.
	programs["passed"] = func(args []string) {
		oob := make([]byte, unix.CmsgSpace(4))
		_, n, _, _, err := unix.Recvmsg(3, make([]byte, 1), oob, 0)
		check(err)
		cs, err := unix.ParseSocketControlMessage(oob[:n])
		check(err)
		fds, err := unix.ParseUnixRights(&cs[0])
		check(err)
		say(name(sysConnect(fds[0], sockaddrOf(must(args[0])))))
	}
}

func errno(err error) unix.Errno {
	e, _ := err.(unix.Errno)
	return e
}

// uringConnect connects a socket through a ring of its own.
func uringConnect(sa []byte) string {
	err := bypass.Ring(bypass.Connect, newSocket(unix.AF_INET, unix.SOCK_STREAM), sa)
	if failed := (*os.SyscallError)(nil); errors.As(err, &failed) {
		return failed.Syscall + " " + name(errno(failed.Err))
	}
	return "connect " + name(errno(err))
}

func TestBypassIOUring(t *testing.T) {
	l := listen(t)
	require.Equal(t, "connect ok\n", native(t, "uring", l.addr.String()))
	l.arrive(t, 1)
	require.Equal(t, "setup ENOSYS\n", run(t, block, "uring", l.addr.String()))
	require.Empty(t, l.reached())
}

func TestBypassMSGFastOpen(t *testing.T) {
	l := listen(t)
	require.Equal(t, "sendto ok\nsendmsg ok\nsendmmsg ok\n", native(t, "fastopen", l.addr.String()))
	l.arrive(t, 3)
	require.Equal(t, "sendto EOPNOTSUPP\nsendmsg EOPNOTSUPP\nsendmmsg EOPNOTSUPP\n", run(t, block, "fastopen", l.addr.String()))
	require.Empty(t, l.reached())
}

func TestBypassFastOpenConnect(t *testing.T) {
	l, p := listen(t), listen(t)
	require.Equal(t, "connect ok\nwrite true\n", native(t, "deferred", l.addr.String()))
	l.arrive(t, 1)
	require.Equal(t, "connect EACCES\nwrite false\n", run(t, block, "deferred", l.addr.String()))
	require.Equal(t, "connect ok\nwrite true\n", run(t, redirectTo(p.addr), "deferred", l.addr.String()))
	require.Empty(t, l.reached())
	p.arrive(t, 1)
}

func TestBypassI386(t *testing.T) {
	if auditArch != unix.AUDIT_ARCH_X86_64 {
		t.Skip("x86-64 only")
	}
	bin, err := bypass.BuildInt80(t.TempDir(), enforcetest.Tool(t, "gcc"))
	require.NoError(t, err)
	l := listen(t)
	port := strconv.Itoa(int(l.addr.Port()))
	out, err := exec.Command(bin, port).Output()
	require.NoError(t, err)
	if strings.Contains(string(out), "connect -38") {
		t.Log("this kernel has no i386 calls")
	} else {
		require.Equal(t, "connect 0\nsocketcall 0\nsocketcall sendto 1\n", string(out))
		require.NotEmpty(t, l.reached())
	}
	trapped, _ := supervise(t, Options{ALE: block}, exec.Command(bin, port))
	require.Equal(t, "connect -38\nsocketcall -38\nsocketcall sendto -38\n", trapped)
	require.Empty(t, l.reached())
}

func TestBypassX32(t *testing.T) {
	l := listen(t)
	require.Equal(t, "ENOSYS\n", run(t, block, "x32", l.addr.String()))
	require.Empty(t, l.reached())
}

func TestBypassOtherSockets(t *testing.T) {
	want := "mptcp EPROTONOSUPPORT\nmptcp6 EPROTONOSUPPORT\nsctp EPROTONOSUPPORT\nsmc EAFNOSUPPORT\n" +
		"raw tcp EPERM\nraw6 EPERM\npacket EPERM\nvsock EAFNOSUPPORT\n"
	require.Equal(t, want, run(t, permit, "sockets"))
	require.NotEqual(t, want, native(t, "sockets"))
}

// An MPTCP socket from outside the tree: Landlock does not look at those.
func TestBypassInheritedMPTCP(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)
	enforcetest.Lack(t, err)
	f := os.NewFile(uintptr(fd), "mptcp")
	defer f.Close()
	l := listen(t)
	cmd := helper("inherited", l.addr.String())
	cmd.ExtraFiles = []*os.File{f}
	var why error
	out, _ := supervise(t, Options{ALE: permit, OnBlocked: func(d enforce.Denial) { why = d.Err }}, cmd)
	require.Equal(t, "EACCES \nEACCES\n", out)
	require.ErrorContains(t, why, "cannot be decided on")
	require.Empty(t, l.reached())
}

func TestBypassInheritedSocket(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "hello")
	l := listen(t)
	fd := newSocket(unix.AF_INET, unix.SOCK_STREAM)
	require.Zero(t, sysConnect(fd, sockaddrOf(p)))
	f := os.NewFile(uintptr(fd), "connected")
	defer f.Close()
	cmd := helper("inherited", p.String(), l.addr.String())
	cmd.ExtraFiles = []*os.File{f}
	out, _ := supervise(t, Options{ALE: block}, cmd)
	// Who started the program gave it the connection. It cannot make another one.
	require.Equal(t, "EISCONN hello\nok\nEACCES \nok\n", out)
	require.Empty(t, l.reached())
}

func TestBypassPassedSocket(t *testing.T) {
	l := listen(t)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	fd := newSocket(unix.AF_INET, unix.SOCK_STREAM)
	defer unix.Close(fd)
	require.NoError(t, unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(fd), nil, 0))
	cmd := helper("passed", l.addr.String())
	cmd.ExtraFiles = []*os.File{theirs}
	out, _ := supervise(t, Options{ALE: block}, cmd)
	require.Equal(t, "EACCES\n", out)
	require.Empty(t, l.reached())
}

// In a namespace of its own the program reaches nothing; a redirect would end
// there, at whatever the program lets listen.
func TestBypassNamespace(t *testing.T) {
	l := listen(t)
	out := native(t, "namespace", l.addr.String())
	require.Contains(t, out, "raw false ok")
	require.Equal(t, "raw true EPERM\ndial ENETUNREACH\n", run(t, permit, "namespace", l.addr.String()))
	var why error
	out, _ = supervise(t, Options{ALE: redirectTo(l.addr), OnBlocked: func(d enforce.Denial) { why = d.Err }}, helper("namespace", test4))
	require.Equal(t, "raw true EPERM\ndial EACCES\n", out)
	require.ErrorContains(t, why, "network namespace")
	require.Empty(t, l.reached())
}

// flip connects over and over while another thread rewrites the address. With a
// third argument it goes on until the second address was reached: one connect in
// a hundred does.
func flip(args []string) {
	a, b := sockaddrOf(must(args[0])), sockaddrOf(must(args[1]))
	sa := sockaddrOf(must(args[0]))
	var stop atomic.Bool
	_, flipped := thread(func() {
		for !stop.Load() {
			copy(sa, b)
			copy(sa, a)
		}
	})
	seen := map[unix.Errno]int{}
	for n := 0; n < 200_000 && (seen[0] < 200 || seen[unix.EACCES] < 200 || len(args) > 2); n++ {
		fd := newSocket(unix.AF_INET, unix.SOCK_STREAM)
		e := sysConnect(fd, sa)
		seen[e]++
		to, _ := unix.Getpeername(fd)
		abort(fd)
		if in, ok := to.(*unix.SockaddrInet4); ok && in.Port == int(must(args[1]).Port()) && len(args) > 2 {
			break
		}
	}
	stop.Store(true)
	<-flipped
	say(seen[0] > 0, seen[unix.EACCES] > 0, len(seen) <= 2)
}

func TestBypassSwappedAddress(t *testing.T) {
	good := serve(t, "tcp4", "127.0.0.1:0", "good")
	l := listen(t)
	require.Equal(t, "true true true\n", run(t, deciding(only(good)), "flip", good.String(), l.addr.String()))
	require.Empty(t, l.reached())
	careless(t, only(good), helper("flip", good.String(), l.addr.String(), "stop"))
	require.NotEmpty(t, l.reached(), "the race must be there to be lost")
}

// careless supervises as one must not: it decides on the address, and then lets
// the program's own call run.
func careless(t *testing.T, p policy, cmd *exec.Cmd) {
	need(t)
	started := make(chan listener, 1)
	ended := make(chan error, 1)
	doomed.Go(func() {
		err := startTrapped(cmd, &Options{without: without{landlock: true}}, func(l listener) { started <- l })
		if err == nil {
			err = cmd.Wait()
		}
		ended <- err
	})
	l := <-started
	defer unix.Close(l.fd)
	var n notif
	var sa [sockaddr4Len]byte
	for l.recv(&n) == nil {
		r := response{ID: n.ID, Flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if readMemory(n.TID, n.Data.Args[1], sa[:]) != 0 || !p(fwps.Incoming{Remote: address(sa[:])}).IsValid() {
			r = response{ID: n.ID, Error: -int32(unix.EACCES)}
		}
		l.send(&r)
	}
	require.NoError(t, <-ended)
}

// swapper returns a function that puts the socket with in the place of victim
// while use runs. Who waits gives the processor away: it may be the only one.
func swapper(victim int) func(with int, use func()) {
	var with atomic.Int32
	go func() {
		runtime.LockOSThread()
		for seed := uint32(1); ; {
			w := with.Load()
			if w == 0 {
				giveWay()
				continue
			}
			seed = seed*1664525 + 1013904223
			for range seed >> 16 % 60000 {
			}
			_ = unix.Dup3(int(w), victim, 0)
			with.Store(0)
		}
	}()
	return func(other int, use func()) {
		with.Store(int32(other))
		use()
		for with.Load() != 0 {
			giveWay()
		}
	}
}

func giveWay() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// swapUnix connects an AF_UNIX socket while a TCP socket takes its place. It
// says whether that one got connected.
func swapUnix(args []string) {
	tries, _ := strconv.Atoi(args[1])
	sa := sockaddrOf(must(args[0])) // The unix socket refuses it; the TCP socket would take it.
	u := newSocket(unix.AF_UNIX, unix.SOCK_STREAM)
	victim, _ := unix.Dup(u)
	tcp := newSocket(unix.AF_INET, unix.SOCK_STREAM)
	swap := swapper(victim)
	reached := false
	for range tries {
		_ = unix.Dup3(u, victim, 0)
		swap(tcp, func() { sysConnect(victim, sa) })
		if _, err := unix.Getpeername(tcp); err == nil {
			reached = true
			break
		}
	}
	say(reached)
}

func TestBypassSwappedUnixSocket(t *testing.T) {
	need(t, enforce.LandlockTCP)
	l := listen(t)
	require.Equal(t, "false\n", run(t, block, "swap unix", l.addr.String(), "5000"))
	require.Empty(t, l.reached())
	out, _ := supervise(t, Options{ALE: block, without: without{landlock: true}}, helper("swap unix", l.addr.String(), "100000"))
	require.Equal(t, "true\n", out, "the race must be there to be lost")
	require.NotEmpty(t, l.reached())
}

// swapTCP connects one of two TCP sockets, each bound to a port of its own,
// while the other takes its place.
func swapTCP(args []string) {
	tries, _ := strconv.Atoi(args[1])
	sa := sockaddrOf(must(args[0]))
	victim := newSocket(unix.AF_INET, unix.SOCK_STREAM)
	swap := swapper(victim)
	for range tries {
		var socks [2]int
		for i := range socks {
			socks[i] = newSocket(unix.AF_INET, unix.SOCK_STREAM)
			check(unix.Bind(socks[i], &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
		}
		_ = unix.Dup3(socks[0], victim, 0)
		swap(socks[1], func() { sysConnect(victim, sa) })
		abort(socks[0])
		abort(socks[1])
	}
}

// The socket that connects is the one that was decided on.
func TestBypassSwappedTCPSocket(t *testing.T) {
	l := listen(t)
	var mu sync.Mutex
	decided := map[netip.AddrPort]int{}
	run(t, deciding(func(in fwps.Incoming) netip.AddrPort {
		mu.Lock()
		defer mu.Unlock()
		decided[in.Local]++
		return in.Remote
	}), "swap tcp", l.addr.String(), "500")
	reached := l.reached()
	require.NotEmpty(t, reached)
	for _, from := range reached {
		require.NotZero(t, decided[from], from)
		decided[from]--
	}
}
