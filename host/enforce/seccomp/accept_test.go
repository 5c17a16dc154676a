//go:build linux && (amd64 || arm64)

package seccomp

import (
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

func init() {
	// server: listen, say where, greet one and say who it was.
	programs["server"] = func(args []string) {
		l := listenRaw()
		_, addr, _ := getName(l)
		if args[0] == "nonblocking" {
			check(unix.SetNonblock(l, true))
			_, _, err := unix.Accept4(l, 0)
			say(name(errno(err)))
			say(addr)
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(l), Events: unix.POLLIN}}, -1)
		} else {
			say(addr)
		}
		fd, sa, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
		if err != nil {
			say(name(errno(err)))
			return
		}
		peer := sa.(*unix.SockaddrInet4)
		flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		_, _ = unix.Write(fd, []byte("hello"))
		unix.Close(fd)
		say(netip.AddrPortFrom(netip.AddrFrom4(peer.Addr), uint16(peer.Port)), flags == unix.FD_CLOEXEC)
	}
	programs["accept errnos"] = acceptErrnos
	programs["accept at its limit"] = acceptsAtItsLimit
	programs["accept signalled"] = func(args []string) {
		l := listenRaw()
		var e error
		tid, done := thread(func() { _, _, e = unix.Accept4(l, 0) })
		inSystemCall(tid, unix.SYS_ACCEPT4)
		kick(tid)
		<-done
		say(name(errno(e)))
		check(unix.SetsockoptTimeval(l, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 30_000}))
		_, _, e = unix.Accept4(l, 0)
		say(name(errno(e)))
	}
}

// acceptsAtItsLimit accepts while it may have no more descriptors, with nobody there and
// with somebody, and afterwards.
func acceptsAtItsLimit([]string) {
	l := listenRaw()
	_, addr, _ := getName(l)
	accept := func() int {
		fd, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
		say("accept", name(errno(err)))
		return fd
	}
	limited := func(f func() int, more uint64) {
		var old unix.Rlimit
		check(unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
		free, err := unix.Dup(l)
		check(err)
		unix.Close(free)
		check(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free) + more, Max: old.Max}))
		f()
		check(unix.Setrlimit(unix.RLIMIT_NOFILE, &old))
	}
	limited(accept, 0)
	c, e := dial(addr)
	say(name(e))
	limited(accept, 0)
	_, err := unix.Write(accept(), []byte("hello"))
	check(err)
	b := make([]byte, 5)
	n, err := unix.Read(c, b)
	say(string(b[:max(n, 0)]), name(errno(err)))
	_, e = dial(addr)
	say(name(e))
	check(unix.Dup3(l, 500, unix.O_CLOEXEC))
	limited(accept, 1) // It has as many as it may, and one of them above the limit.
}

func acceptErrnos([]string) {
	l := listenRaw()
	_, addr, _ := getName(l)
	accept := func(what string, fd int, sa []byte, n *uint32, flags int) {
		r, _, e := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(sa))), uintptr(unsafe.Pointer(n)), uintptr(flags), 0, 0)
		if e != 0 {
			say(what, name(e))
			return
		}
		get, _ := unix.FcntlInt(r, unix.F_GETFD, 0)
		fl, _ := unix.FcntlInt(r, unix.F_GETFL, 0)
		say(what, name(e), get, fl&unix.O_NONBLOCK != 0)
		unix.Close(int(r))
	}
	connect := func() { _, e := dial(addr); say(name(e)) }
	connect()
	accept("no address", l, nil, nil, unix.SOCK_NONBLOCK)
	for _, room := range []uint32{0, 4, 16, 100} {
		connect()
		sa, n := make([]byte, 200), room
		accept("room", l, sa, &n, unix.SOCK_CLOEXEC)
		clear(sa[2:4]) // the port, which differs
		say(n, sa[:20])
	}
	connect()
	accept("fault", l, make([]byte, 16), (*uint32)(unsafe.Pointer(&nowhereToRead()[0])), 0)
	connect()
	negative := uint32(1 << 31)
	accept("negative", l, make([]byte, 16), &negative, 0)
	accept("bad flags", l, nil, nil, 1)
	accept("not listening", newSocket(unix.AF_INET, unix.SOCK_STREAM), nil, nil, 0)
	accept("udp", newSocket(unix.AF_INET, unix.SOCK_DGRAM), nil, nil, 0)
	accept("no socket", 0, nil, nil, 0)
	u := newSocket(unix.AF_UNIX, unix.SOCK_STREAM)
	accept("unix", u, nil, nil, 0)
}

func TestAcceptErrnosAreNative(t *testing.T) {
	out := run(t, permit, "accept errnos")
	require.Equal(t, native(t, "accept errnos"), out)
	require.Contains(t, out, "no address ok 0 true\n")
	require.Contains(t, out, "fault EFAULT\n")
}

// As without a supervisor, a program that may have no more descriptors hears so at once, and
// who has connected to it waits.
func TestAcceptAtTheProgramsLimit(t *testing.T) {
	require.Equal(t, "accept EMFILE\nok\naccept EMFILE\naccept ok\nhello ok\nok\naccept ok\n", native(t, "accept at its limit"))
	require.Equal(t, native(t, "accept at its limit"), run(t, permit, "accept at its limit"))
}

func TestAcceptGivesWayToSignalsAndTimeouts(t *testing.T) {
	require.Equal(t, "EINTR\nEAGAIN\n", native(t, "accept signalled"))
	require.Equal(t, "EINTR\nEAGAIN\n", run(t, permit, "accept signalled"))
}

// client connects from a source address and says what it reads. A reset may come
// before the connect has returned.
func client(from string, to netip.AddrPort) string {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp4", to.String())
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	s, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	return string(s)
}

// A connection that the policy refuses is reset, and the program never sees it.
func TestAcceptIsDecided(t *testing.T) {
	for _, mode := range []string{"blocking", "nonblocking"} {
		t.Run(mode, func(t *testing.T) {
			l := &layers{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){
				fwpm.LayerALEAuthRecvAcceptV4: blockIf(func(in *fwps.Incoming) bool { return in.Remote.Addr() == netip.MustParseAddr("127.0.0.7") })}}
			var lines []string
			var denied []enforce.Denial
			watched(t, Options{ALE: l.enforcer(), OnBlocked: func(d enforce.Denial) { denied = append(denied, d) }}, helper("server", mode), func(line string) {
				lines = append(lines, line)
				if addr, err := netip.ParseAddrPort(line); err == nil {
					if mode == "blocking" {
						require.Contains(t, client("127.0.0.7", addr), "connection reset by peer")
					}
					require.Equal(t, "hello", client("127.0.0.8", addr))
				}
			})
			if mode == "nonblocking" {
				require.Equal(t, "EAGAIN", lines[0])
				lines = lines[1:]
			}
			require.Len(t, lines, 2)
			require.True(t, strings.HasPrefix(lines[1], "127.0.0.8:") && strings.HasSuffix(lines[1], " true"), lines[1])
			last := l.seen[len(l.seen)-2:]
			require.Equal(t, fwpm.LayerALEAuthRecvAcceptV4, last[0].Layer)
			require.Equal(t, lines[0], last[0].Local.String())
			require.Equal(t, fwpm.LayerALEFlowEstablishedV4, last[1].Layer)
			if mode == "blocking" {
				require.Len(t, denied, 1)
				require.Equal(t, netip.MustParseAddr("127.0.0.7"), denied[0].Remote.Addr())
			}
		})
	}
}

func TestServersOfOthers(t *testing.T) {
	script := map[string]string{
		"python3": "import socket; s=socket.socket(); s.bind(('127.0.0.1',0)); s.listen(); print('127.0.0.1:%d'%s.getsockname()[1], flush=True); c,_=s.accept(); c.sendall(b'hello'); c.close()",
		"node":    "const s=require('net').createServer(c=>{c.end('hello');s.close()}).listen(0,'127.0.0.1',()=>console.log('127.0.0.1:'+s.address().port))",
	}
	for name, code := range script {
		t.Run(name, func(t *testing.T) {
			flag := map[string]string{"python3": "-c", "node": "-e"}[name]
			cmd := exec.Command(enforcetest.Tool(t, name), flag, code)
			cmd.Stderr = os.Stderr
			watched(t, Options{ALE: permit}, cmd, func(line string) {
				require.Equal(t, "hello", client("127.0.0.1", must(line)))
			})
		})
	}
}
