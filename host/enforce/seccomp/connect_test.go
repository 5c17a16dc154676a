//go:build linux && (amd64 || arm64)

package seccomp

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

func init() {
	// dial: connect to each address and print what came back.
	programs["dial"] = func(args []string) {
		for _, a := range args {
			fd, e := dial(must(a))
			say(name(e), read(fd))
		}
	}
	programs["nonblocking"] = func(args []string) {
		sa := sockaddrOf(must(args[0]))
		fd := newSocket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK)
		say(name(sysConnect(fd, sa)))
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		say(read(fd))
		say(name(sysConnect(fd, sa)))
		say(name(sysConnect(fd, sa)))
	}
	// underway: begin to connect to each address without waiting; then wait for the
	// outcome of each, and say it; end with the input.
	programs["underway"] = func(args []string) {
		var fds []int
		for _, a := range args {
			fd := newSocket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK)
			say(name(sysConnect(fd, sockaddrOf(must(a)))))
			fds = append(fds, fd)
		}
		for _, fd := range fds {
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
			so, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			check(err)
			say(name(unix.Errno(so)))
		}
		_, _ = io.Copy(io.Discard, os.Stdin)
	}
	// underway reads: begin to connect without waiting, by a number that is not the
	// socket's any more if "moved"; then wait for what comes, and say it.
	programs["underway reads"] = func(args []string) {
		fd := newSocket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK)
		say(name(sysConnect(fd, sockaddrOf(must(args[0])))))
		if args[1] == "moved" {
			moved, err := unix.Dup(fd)
			check(err)
			check(unix.Close(fd))
			fd = moved
		}
		say("goes on")
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		_, err := unix.Read(fd, make([]byte, 1))
		say(name(errno(err)))
	}
	// elsewhere: begin to connect to the first address without waiting, and think better
	// of it: to the second.
	programs["elsewhere"] = func(args []string) {
		fd := newSocket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK)
		say(name(sysConnect(fd, sockaddrOf(must(args[0])))))
		say(name(sysConnect(fd, make([]byte, 16))))
		say(name(sysConnect(fd, sockaddrOf(must(args[1])))))
		_, _ = io.Copy(io.Discard, os.Stdin)
	}
	// over: connect to an address that refuses it, without waiting, and to itself, which
	// ends it with a reset; then call connect() again for each.
	programs["over"] = func(args []string) {
		fd := newSocket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK)
		ended := func(fd int) { _, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd)}}, -1) } // POLLHUP needs no asking.
		say(name(sysConnect(fd, sockaddrOf(must(args[0])))))
		ended(fd)
		say(name(sysConnect(fd, sockaddrOf(must(args[0])))))
		l := listenRaw()
		_, at, _ := getName(l)
		fd, e := dial(at)
		say(name(e))
		peer, _, err := unix.Accept(l)
		check(err)
		abort(peer)
		ended(fd)
		say(name(sysConnect(fd, sockaddrOf(at))))
	}
	programs["errnos"] = errnos
	programs["unix"] = func(args []string) {
		c, err := net.Dial("unix", args[0])
		check(err)
		b := make([]byte, 64)
		n, _ := c.Read(b)
		say(string(b[:n]))
	}
	// again: connect, disconnect with AF_UNSPEC, connect the same socket elsewhere.
	programs["again"] = func(args []string) {
		fd := newSocket(unix.AF_INET, unix.SOCK_STREAM)
		for _, a := range args {
			say(name(sysConnect(fd, sockaddrOf(must(a)))), read(fd))
			say(name(sysConnect(fd, make([]byte, 16))))
		}
	}
}

func errnos(args []string) {
	to := must(args[0])
	sa := sockaddrOf(to)
	fresh := func() int { return newSocket(unix.AF_INET, unix.SOCK_STREAM) }
	fd, e := dial(to)
	say("first", name(e))
	say("again", name(sysConnect(fd, sa)))
	say("unspec", name(sysConnect(fd, make([]byte, 16))))
	say("reuse", name(sysConnect(fd, sa)))
	say("short", name(sysConnect(fresh(), sa[:8])))
	say("one byte", name(sysConnect(fresh(), sa[:1])))
	say("empty", name(sysConnect(fresh(), sa[:0])))
	say("long", name(sysConnect(fresh(), append(sa[:16:16], make([]byte, 112)...))))
	say("too long", name(sysConnect(fresh(), make([]byte, 129))))
	_, _, e = unix.Syscall(unix.SYS_CONNECT, uintptr(fresh()), uintptr(unsafe.Pointer(&sa[0])), 1<<31)
	say("negative", name(e))
	say("family", name(sysConnect(fresh(), putSockaddr(make([]byte, sockaddr6Len), unix.AF_INET6, to))))
	_, _, e = unix.Syscall(unix.SYS_CONNECT, uintptr(fresh()), 8, 16)
	say("fault", name(e))
	page, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	check(err)
	check(unix.Mprotect(page[4096:], unix.PROT_NONE))
	for _, over := range []int{0, 1} {
		at := uintptr(unsafe.Pointer(&page[4096-16+over]))
		copy(page[4096-16+over:4096], sa)
		_, _, e = unix.Syscall(unix.SYS_CONNECT, uintptr(fresh()), at, 16)
		say("at the end of a page, over it by", over, name(e))
	}
	_, _, e = unix.Syscall(unix.SYS_CONNECT, uintptr(fresh())|0xdead_beef<<32, uintptr(unsafe.Pointer(&sa[0])), 0xdead_beef<<32|16)
	say("high bits", name(e))
	say("bad descriptor", name(sysConnect(999, sa)))
	say("negative descriptor", name(sysConnect(-1, sa)))
	f, _ := unix.Open("/dev/null", unix.O_RDONLY, 0)
	say("no socket", name(sysConnect(f, sa)))
	v6 := newSocket(unix.AF_INET6, unix.SOCK_STREAM)
	_ = unix.SetsockoptInt(v6, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	say("v6only", name(sysConnect(v6, putSockaddr(make([]byte, sockaddr6Len), unix.AF_INET6, to))))
	say("listening", name(sysConnect(listenRaw(), sa)))
	udp := newSocket(unix.AF_INET, unix.SOCK_DGRAM)
	say("udp", name(sysConnect(udp, sa)))
	say("refused", name(sysConnect(fresh(), sockaddrOf(netip.AddrPortFrom(to.Addr(), 1)))))
	bound := fresh()
	check(unix.Bind(bound, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 2}}))
	say("from a source", name(sysConnect(bound, sa)))
	_, local, _ := getName(bound)
	say(local.Addr())
}

func TestErrnosAreNative(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "proxy").String()
	out := run(t, permit, "errnos", p)
	require.Equal(t, native(t, "errnos", p), out)
	for _, line := range []string{"first ok", "again EISCONN", "unspec ok", "fault EFAULT", "too long EINVAL", "high bits ok",
		"at the end of a page, over it by 0 ok", "at the end of a page, over it by 1 EFAULT", "from a source ok"} {
		require.Contains(t, out, line+"\n")
	}
}

func TestRedirect(t *testing.T) {
	p4 := serve(t, "tcp4", "127.0.0.1:0", "proxy")
	p6 := serve(t, "tcp6", "[::1]:0", "proxy")
	var mu sync.Mutex
	var seen []fwps.Incoming
	out := run(t, deciding(func(in fwps.Incoming) netip.AddrPort {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, in)
		switch a := in.Remote.Addr(); {
		case a.Is4():
			return p4
		case a.Is4In6():
			return netip.AddrPortFrom(netip.AddrFrom16(p4.Addr().As16()), p4.Port())
		}
		return p6
	}), "dial", test4, test6, testMapped)
	require.Equal(t, strings.Repeat("ok proxy\n", 3), out)
	require.Len(t, seen, 3)
	exe, err := os.Executable()
	require.NoError(t, err)
	for i, want := range []string{test4, test6, testMapped} {
		in := seen[i]
		require.Equal(t, must(want), in.Remote)
		require.Equal(t, exe, in.AppID)
		require.Equal(t, uint32(os.Geteuid()), in.UserID)
		require.True(t, in.UserKnown)
		require.NotZero(t, in.ProcessID)
		require.NotZero(t, in.EndpointID)
		require.Equal(t, fwps.ProtocolTCP, in.Protocol)
	}
	require.NotEqual(t, seen[0].EndpointID, seen[1].EndpointID)
}

// FLOW_ESTABLISHED is asked, although the program is told to wait.
func TestNonBlockingFlowIsEstablished(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "proxy")
	l := &layers{}
	require.Contains(t, run(t, l.enforcer(), "nonblocking", p.String()), "EINPROGRESS\nproxy\n")
	require.Equal(t, fwpm.LayerALEFlowEstablishedV4, l.seen[len(l.seen)-1].Layer)
}

// following runs a program, and returns what it says, what FLOW_ESTABLISHED was asked
// about, and how the program is ended.
func following(t *testing.T, program string, args ...string) (said *bufio.Reader, established <-chan netip.AddrPort, end func()) {
	asked := make(chan netip.AddrPort, 16)
	l := &layers{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){
		fwpm.LayerALEFlowEstablishedV4: func(in *fwps.Incoming, _ *fwps.Decision) { asked <- in.Remote },
	}}
	cmd := helper(program, args...)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	cmd.Stdout = w
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer w.Close()
		_, err := Run(context.Background(), Options{ALE: l.enforcer(), Logf: t.Logf}, cmd)
		assert.NoError(t, err)
	}()
	end = sync.OnceFunc(func() { in.Close(); <-done; r.Close() })
	t.Cleanup(end)
	return bufio.NewReader(r), asked, end
}

func says(t *testing.T, said *bufio.Reader, want string) {
	line, err := said.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, want+"\n", line)
}

// A connection that goes on when connect() has returned is FLOW_ESTABLISHED when it is,
// and one that fails never is.
func TestFlowUnderWayIsEstablishedLater(t *testing.T) {
	need(t)
	arrives, drain, _ := full(t)
	fails, _, closeIt := full(t)
	said, established, end := following(t, "underway", arrives.String(), fails.String())
	says(t, said, "EINPROGRESS")
	says(t, said, "EINPROGRESS")
	require.Empty(t, established)
	closeIt()
	drain()
	says(t, said, "ok")
	says(t, said, "ECONNREFUSED")
	require.Equal(t, arrives, <-established)
	end()
	require.Empty(t, established)
}

// What the program has thought better of is not established, and the socket's next
// connection is.
func TestFlowOfASocketThatGoesElsewhere(t *testing.T) {
	need(t)
	first, drain, _ := full(t)
	second, drainSecond, _ := full(t)
	said, established, end := following(t, "elsewhere", first.String(), second.String())
	says(t, said, "EINPROGRESS")
	says(t, said, "ok")
	says(t, said, "EINPROGRESS")
	drain()
	drainSecond()
	require.Equal(t, second, <-established)
	end()
	require.Empty(t, established)
}

// Nobody hears of what is under way when all ends; the supervisor does not wait for it,
// and keeps nothing.
func TestFlowUnderWayAtTheEnd(t *testing.T) {
	need(t)
	never, _, _ := full(t)
	var before string
	for n := range 2 {
		said, established, end := following(t, "elsewhere", never.String(), never.String())
		says(t, said, "EINPROGRESS")
		says(t, said, "ok")
		says(t, said, "EINPROGRESS")
		end()
		require.Empty(t, established)
		if n == 0 { // What the process opens once is open.
			before = descriptors(t)
		}
	}
	require.Empty(t, more(before, descriptors(t)))
}

// One connection is one decision, however often connect() is called for it.
func TestNonBlocking(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "proxy")
	decisions := 0
	out := run(t, deciding(func(fwps.Incoming) netip.AddrPort { decisions++; return p }), "nonblocking", test4)
	require.Equal(t, "EINPROGRESS\nproxy\nok\nEISCONN\n", out)
	require.Equal(t, native(t, "nonblocking", p.String()), out)
	require.Equal(t, 1, decisions)
}

// Nor is it another one when connect() is called to learn how it ended, or for a socket
// whose connection is over.
func TestConnectOfWhatIsOver(t *testing.T) {
	to := vacant(t).String()
	decisions := 0
	out := run(t, deciding(func(in fwps.Incoming) netip.AddrPort { decisions++; return in.Remote }), "over", to)
	require.Equal(t, "EINPROGRESS\nECONNREFUSED\nok\nEISCONN\n", out)
	require.Equal(t, native(t, "over", to), out)
	require.Equal(t, 2, decisions)
}

func TestBlocked(t *testing.T) {
	var denied []enforce.Denial
	cmd := helper("dial", test4)
	out, st := supervise(t, Options{ALE: block, OnBlocked: func(d enforce.Denial) { denied = append(denied, d) }}, cmd)
	require.True(t, st.Success())
	require.Equal(t, "EACCES \n", out)
	require.Len(t, denied, 1)
	require.Equal(t, must(test4), denied[0].Remote)
	require.Equal(t, uint32(cmd.Process.Pid), denied[0].PID)
	var b *ale.BlockedError
	require.ErrorAs(t, denied[0].Err, &b)
}

func TestUnixSocketsAreTheProgramsOwn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	serve(t, "unix", path, "hello")
	require.Equal(t, "hello\n", run(t, block, "unix", path))
}

// A socket that is disconnected with AF_UNSPEC is decided anew: the record of
// its first connection stays with that one.
func TestReconnectIsDecidedAgain(t *testing.T) {
	originals := make(chan netip.AddrPort, 2)
	e, _ := proxied(t, func(f *ale.Flow) { originals <- f.Original })
	require.Equal(t, "ok \nok\nok \nok\n", run(t, e, "again", test4, "198.51.100.7:443"))
	require.Equal(t, must(test4), <-originals)
	require.Equal(t, must("198.51.100.7:443"), <-originals)

	p := serve(t, "tcp4", "127.0.0.1:0", "proxy")
	require.Equal(t, "ok proxy\nok\nEACCES \nok\n", run(t, deciding(only(p)), "again", p.String(), test4))
}

// clients are programs of others that connect to test4 and print what they read.
var clients = map[string][]string{
	"curl":    {"-s", "--noproxy", "*", "--http0.9", "http://" + test4},
	"wget":    {"-q", "--no-proxy", "-O", "-", "http://" + test4},
	"python3": {"-c", "import socket; print(socket.create_connection(('203.0.113.10', 80)).recv(99).decode())"},
	"node":    {"-e", "require('net').connect(80, '203.0.113.10').on('data', d => console.log(String(d))).on('close', process.exit)"},
	"bash":    {"-c", "exec 3<>/dev/tcp/203.0.113.10/80; cat <&3"},
}

func TestRealClients(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "HTTP/1.0 200 OK\r\n\r\nproxy")
	for name, args := range clients {
		t.Run(name, func(t *testing.T) {
			out, _ := supervise(t, Options{ALE: redirectTo(p)}, exec.Command(enforcetest.Tool(t, name), args...))
			require.Contains(t, out, "proxy")
		})
	}
}
