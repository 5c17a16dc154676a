//go:build linux && (amd64 || arm64)

package seccomp

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/enforcetest"
)

func init() {
	programs["surroundings"] = func([]string) {
		b, _ := os.ReadFile("/proc/net/dev")
		say("devices", strings.Count(string(b), ":"))
		say("uid", os.Geteuid())
		ifs, err := net.Interfaces() // By a socket that is made outside.
		check(err)
		say("interfaces", len(ifs))
	}
	programs["set routes"] = func([]string) {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		check(err)
		msg := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg)
		h := (*unix.NlMsghdr)(unsafe.Pointer(&msg[0]))
		*h = unix.NlMsghdr{Len: uint32(len(msg)), Type: unix.RTM_NEWLINK, Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK}
		if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			say(name(errno(err)))
			return
		}
		b := make([]byte, 4096)
		n, _, err := unix.Recvfrom(fd, b, 0)
		check(err)
		reply, err := syscallParse(b[:n])
		check(err)
		say(name(reply))
	}
	// netlink: a program of several threads that has given its capabilities up asks for
	// what needs them.
	programs["netlink"] = func([]string) {
		_, _ = thread(func() { select {} })
		h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		check(unix.Capset(&h, &none[0]))
		const auditGet, flushSA = 1000, 0x1c // AUDIT_GET, XFRM_MSG_FLUSHSA
		for _, ask := range []struct {
			what           string
			protocol, kind int
			body           []byte
		}{{"audit", unix.NETLINK_AUDIT, auditGet, make([]byte, 40)}, {"flush", unix.NETLINK_XFRM, flushSA, []byte{unix.IPPROTO_ESP}}} {
			fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, ask.protocol)
			if err != nil {
				say(ask.what, name(errno(err))) // This kernel does not have it.
				continue
			}
			msg := append(make([]byte, unix.SizeofNlMsghdr), ask.body...)
			*(*unix.NlMsghdr)(unsafe.Pointer(&msg[0])) = unix.NlMsghdr{Len: uint32(len(msg)), Type: uint16(ask.kind), Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK}
			if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
				say(ask.what, name(errno(err)))
				continue
			}
			b := make([]byte, 4096)
			n, _, err := unix.Recvfrom(fd, b, 0)
			check(err)
			reply, err := syscallParse(b[:n])
			check(err)
			say(ask.what, name(reply))
		}
	}
	programs["shares descriptors"] = func([]string) {
		pid, _, e := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_FILES|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if e == 0 && pid == 0 {
			unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
		}
		say(name(e))
		_, _, e = unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0)
		say(name(e))
	}
	// jailed: a program of several threads connects out of the folder that is its root.
	programs["jailed"] = func(args []string) {
		_, _ = thread(func() { select {} })
		check(unix.Chroot(args[0]))
		check(os.Chdir("/"))
		for _, path := range args[1:] {
			say(name(errno(unix.Connect(newSocket(unix.AF_UNIX, unix.SOCK_STREAM), &unix.SockaddrUnix{Name: path}))))
		}
	}
	programs["unix traffic"] = unixTraffic
	programs["swap udp"] = swapUDP
}

func syscallParse(b []byte) (unix.Errno, error) {
	if len(b) < unix.SizeofNlMsghdr+4 {
		return 0, fmt.Errorf("short reply")
	}
	return unix.Errno(-*(*int32)(unsafe.Pointer(&b[unix.SizeofNlMsghdr]))), nil
}

// unixTraffic sends all sorts of things on AF_UNIX sockets, from a process of
// several threads.
func unixTraffic(args []string) {
	dir := args[0]
	check(os.Chdir(dir))
	for _, path := range []string{filepath.Join(dir, "stream"), "stream", "./missing"} {
		fd := newSocket(unix.AF_UNIX, unix.SOCK_STREAM)
		err := unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		say("connect", filepath.Base(path), name(errno(err)))
		if err == nil {
			cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
			check(err)
			say("peer", cred.Uid, read(fd))
		}
	}
	d := newSocket(unix.AF_UNIX, unix.SOCK_DGRAM)
	for range 2 {
		say("sendto", name(errno(unix.Sendto(d, []byte("one"), 0, &unix.SockaddrUnix{Name: "datagram"}))))
	}
	say("sendto nobody", name(errno(unix.Sendto(d, []byte("one"), 0, &unix.SockaddrUnix{Name: "missing"}))))
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(err)
	r, w, err := os.Pipe()
	check(err)
	check(unix.Sendmsg(pair[0], []byte("with a descriptor"), unix.UnixRights(int(w.Fd())), nil, 0))
	b, oob := make([]byte, 64), make([]byte, 64)
	n, oobn, _, _, err := unix.Recvmsg(pair[1], b, oob, 0)
	check(err)
	cs, err := unix.ParseSocketControlMessage(oob[:oobn])
	check(err)
	fds, err := unix.ParseUnixRights(&cs[0])
	check(err)
	_, err = unix.Write(fds[0], []byte("through it"))
	check(err)
	say(string(b[:n]), read(int(r.Fd())))
	// More than fits: the sender waits for the reader, and all arrives.
	big := bytes.Repeat([]byte("0123456789"), 150_000)
	sent := make(chan int, 1)
	go func() {
		n, err := unix.SendmsgN(pair[0], big, nil, nil, 0)
		check(err)
		unix.Close(pair[0])
		sent <- n
	}()
	var got []byte
	for buf := make([]byte, 1<<16); ; {
		n, err := unix.Read(pair[1], buf)
		if n <= 0 {
			check(err)
			break
		}
		got = append(got, buf[:n]...)
	}
	say("much", <-sent, bytes.Equal(big, got))
	say("pipe", name(errno(unix.Sendmsg(pair[1], []byte("x"), nil, nil, unix.MSG_NOSIGNAL))))
}

// swapUDP tries to send a datagram with the program's own call: it names a UDP
// destination on an AF_UNIX socket, in whose place another thread puts a UDP
// socket meanwhile.
func swapUDP(args []string) {
	tries, _ := strconv.Atoi(args[1])
	to := sockaddrOf(must(args[0]))
	u, udp := newSocket(unix.AF_UNIX, unix.SOCK_DGRAM), newSocket(unix.AF_INET, unix.SOCK_DGRAM)
	victim, _ := unix.Dup(u)
	swap := swapper(victim)
	msg := header(to, "x")
	for range tries {
		_ = unix.Dup3(u, victim, 0)
		swap(udp, func() {
			sysConnect(victim, to)
			_, _, _ = unix.Syscall(unix.SYS_SENDMSG, uintptr(victim), uintptr(unsafe.Pointer(&msg)), 0)
		})
		if _, err := unix.Getpeername(udp); err == nil {
			_, _ = unix.Write(udp, []byte("x"))
			say("connected")
			return
		}
	}
}

// isolated runs a program in isolation.
func runIsolated(t *testing.T, opts Options, cmd *exec.Cmd) string {
	t.Helper()
	need(t, enforce.UserNS)
	opts.Isolate = true
	out, _ := supervise(t, opts, cmd)
	return out
}

func TestIsolatedProgramSeesNoNetwork(t *testing.T) {
	ifs, err := net.Interfaces()
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("devices 1\nuid %d\ninterfaces %d\n", os.Geteuid(), len(ifs)),
		runIsolated(t, Options{ALE: permit}, helper("surroundings")))
}

func TestIsolatedConnects(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "proxy")
	good, _ := udpServer(t, "good")
	require.Equal(t, "ok proxy\n", runIsolated(t, Options{ALE: permit}, helper("dial", p.String())))
	require.Equal(t, "ok proxy\n", runIsolated(t, Options{ALE: redirectTo(p)}, helper("dial", test4)))
	require.Equal(t, "EACCES \n", runIsolated(t, Options{ALE: block}, helper("dial", p.String())))
	require.Equal(t, "640\n", runIsolated(t, Options{ALE: redirectTo(p)}, helper("threads", test4)))
	for how := range senders {
		require.Equal(t, "ok good ping\n", runIsolated(t, Options{ALE: permit}, helper("udp", how, good.String())), how)
	}
}

func TestIsolatedErrnosAreNative(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "proxy").String()
	u, _ := udpServer(t, "x")
	require.Equal(t, native(t, "errnos", p), runIsolated(t, Options{ALE: permit}, helper("errnos", p)))
	require.Equal(t, native(t, "udp errnos", u.String()), runIsolated(t, Options{ALE: permit}, helper("udp errnos", u.String())))
	require.Equal(t, native(t, "accept errnos"), runIsolated(t, Options{ALE: permit}, helper("accept errnos")))
}

func TestIsolatedProgramCannotSetRoutes(t *testing.T) {
	require.Equal(t, "EPERM\n", runIsolated(t, Options{ALE: permit}, helper("set routes")))
}

// What is sent for a program is not sent with the supervisor's rights: as root it could
// change the audit rules of the whole system.
func TestIsolatedProgramDoesNotBorrowRights(t *testing.T) {
	asRoot(t)
	require.NotContains(t, runIsolated(t, Options{ALE: permit}, helper("netlink")), "ok")
}

func TestIsolatedProgramDoesNotShareDescriptors(t *testing.T) {
	require.Equal(t, "EPERM\nENOSYS\n", runIsolated(t, Options{ALE: permit}, helper("shares descriptors")))
}

func TestIsolatedUnixSockets(t *testing.T) {
	dir := t.TempDir()
	serve(t, "unix", filepath.Join(dir, "stream"), "hello")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "datagram")})
	require.NoError(t, err)
	defer c.Close()
	want := native(t, "unix traffic", dir)
	require.Contains(t, want, "much 1500000 true\npipe EPIPE\n")
	require.Equal(t, want, runIsolated(t, Options{ALE: block}, helper("unix traffic", dir)))
}

// A program may have a root of its own, and the supervisor, which looks its paths up, has
// another one.
func TestIsolatedProgramStaysInItsRoot(t *testing.T) {
	asRoot(t)
	dir := t.TempDir()
	jail, outside := filepath.Join(dir, "jail"), filepath.Join(dir, "outside")
	require.NoError(t, os.Mkdir(jail, 0o755))
	require.NoError(t, os.Symlink(outside, filepath.Join(jail, "link")))
	serve(t, "unix", outside, "outside")
	serve(t, "unix", filepath.Join(jail, "inside"), "inside")
	out := runIsolated(t, Options{ALE: permit}, helper("jailed", jail, "inside", "/inside", "../outside", strings.Repeat("../", strings.Count(jail, "/"))+outside[1:], "link", outside))
	require.Equal(t, []string{"ok", "ok"}, strings.Fields(out)[:2])
	require.Len(t, strings.Fields(out), 6)
	require.NotContains(t, strings.Fields(out)[2:], "ok")
}

// A lost race reaches nothing: what could be raced, the program does not do.
func TestIsolatedRacesReachNothing(t *testing.T) {
	l := listen(t)
	bad, got := udpServer(t, "bad")
	require.Equal(t, "false\n", runIsolated(t, Options{ALE: block, without: without{landlock: true}}, helper("swap unix", l.addr.String(), "3000")))
	require.Empty(t, l.reached())
	require.Empty(t, runIsolated(t, Options{ALE: block}, helper("swap udp", bad.String(), "3000")))
	require.Empty(t, got())
	out, _ := supervise(t, Options{ALE: block}, helper("swap udp", bad.String(), "100000"))
	require.True(t, out != "" || got() != "", "the race must be there to be lost without isolation")
}

func TestIsolatedServersAndClients(t *testing.T) {
	for _, mode := range []string{"blocking", "nonblocking"} {
		watched(t, Options{ALE: permit, Isolate: true}, helper("server", mode), func(line string) {
			if addr, err := netip.ParseAddrPort(line); err == nil && addr.Addr() == netip.MustParseAddr("127.0.0.1") && addr.Port() != 0 {
				client("127.0.0.1", addr)
			}
		})
	}
	p := serve(t, "tcp4", "127.0.0.1:0", "HTTP/1.0 200 OK\r\n\r\nproxy")
	for name, args := range clients {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, runIsolated(t, Options{ALE: redirectTo(p)}, exec.Command(enforcetest.Tool(t, name), args...)), "proxy")
		})
	}
}
