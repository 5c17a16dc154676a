//go:build linux && (amd64 || arm64)

package seccomp

import (
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

func sysBind(fd int, sa []byte) unix.Errno {
	_, _, e := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(sa))), uintptr(len(sa)))
	return e
}

func init() {
	// bind: kind, address...: bind and say what came of it.
	programs["bind"] = func(args []string) {
		kind := map[string]int{"tcp": unix.SOCK_STREAM, "udp": unix.SOCK_DGRAM}[args[0]]
		for _, a := range args[1:] {
			to := must(a)
			fd := newSocket(int(domainOf(to.Addr())), kind)
			e := sysBind(fd, sockaddrOf(to))
			_, local, _ := getName(fd)
			say(name(e), local.Addr(), local.Port() == to.Port() || to.Port() == 0 && local.Port() != 0)
			if e == 0 && kind == unix.SOCK_STREAM {
				say(name(errno(unix.Listen(fd, 5))))
			}
		}
	}
	programs["bind errnos"] = func(args []string) {
		taken := sockaddrOf(must(args[0]))
		free := sockaddrOf(must("127.0.0.1:0"))
		fresh := func() int { return newSocket(unix.AF_INET, unix.SOCK_STREAM) }
		say("taken", name(sysBind(fresh(), taken)))
		fd := fresh()
		say("first", name(sysBind(fd, free)))
		say("again", name(sysBind(fd, free)))
		say("short", name(sysBind(fresh(), free[:8])))
		say("long", name(sysBind(fresh(), make([]byte, 129))))
		say("empty", name(sysBind(fresh(), nil)))
		say("unspec any", name(sysBind(fresh(), make([]byte, 16))))
		unspec := sockaddrOf(must("127.0.0.1:0"))
		unspec[0] = 0
		say("unspec", name(sysBind(fresh(), unspec)))
		say("family", name(sysBind(fresh(), sockaddrOf(must("[::1]:0")))))
		say("elsewhere", name(sysBind(fresh(), sockaddrOf(must("203.0.113.10:0")))))
		say("v6", name(sysBind(newSocket(unix.AF_INET6, unix.SOCK_STREAM), sockaddrOf(must("[::1]:0")))))
		say("mapped", name(sysBind(newSocket(unix.AF_INET6, unix.SOCK_DGRAM), sockaddrOf(must("[::ffff:127.0.0.1]:0")))))
		say("bad descriptor", name(sysBind(999, free)))
		say("no socket", name(sysBind(0, free)))
		u := newSocket(unix.AF_UNIX, unix.SOCK_STREAM)
		say("unix", name(sysBind(u, []byte{unix.AF_UNIX, 0})))
		say("unix listen", name(errno(unix.Listen(u, 1))))
		say("listen", name(errno(unix.Listen(fresh(), 1))))
		say("listen udp", name(errno(unix.Listen(newSocket(unix.AF_INET, unix.SOCK_DGRAM), 1))))
		connected, _ := dial(must(args[0]))
		say("listen connected", name(errno(unix.Listen(connected, 1))))
		runtime.LockOSThread()
		_, _, e := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), nobodyID, ^uintptr(0))
		say(name(e))
		_, _, e = unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0)
		say("privileged", name(e), name(sysBind(fresh(), sockaddrOf(must("127.0.0.1:7")))))
	}
}

func TestBindErrnosAreNative(t *testing.T) {
	asRoot(t)
	l := listen(t)
	out := run(t, permit, "bind errnos", l.addr.String())
	l.reached()
	require.Equal(t, native(t, "bind errnos", l.addr.String()), out)
	require.Contains(t, out, "taken EADDRINUSE\nfirst ok\nagain EINVAL\n")
	require.Contains(t, out, "privileged ok EACCES\n")
}

// ALE-LAY-03, ALE-LAY-06: the layers of a server.
func TestBindLayers(t *testing.T) {
	l := &layers{}
	require.Equal(t, "ok 127.0.0.1 true\nok\n", run(t, l.enforcer(), "bind", "tcp", "127.0.0.1:0"))
	require.Len(t, l.seen, 3)
	require.Equal(t, fwpm.LayerALEBindRedirectV4, l.seen[0].Layer)
	require.Equal(t, must("127.0.0.1:0"), l.seen[0].Local)
	require.Equal(t, fwpm.LayerALEResourceAssignmentV4, l.seen[1].Layer)
	require.NotZero(t, l.seen[1].Local.Port())
	require.Equal(t, fwpm.LayerALEAuthListenV4, l.seen[2].Layer)
	require.Equal(t, l.seen[1].Local, l.seen[2].Local)
	exe, err := os.Executable()
	require.NoError(t, err)
	for _, in := range l.seen {
		require.Equal(t, exe, in.AppID)
	}
}

// SC-89: a bind is redirected.
func TestBindIsRedirected(t *testing.T) {
	for _, kind := range []string{"tcp", "udp"} {
		l := &layers{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){
			fwpm.LayerALEBindRedirectV4: func(_ *fwps.Incoming, d *fwps.Decision) { d.PushBind().Local = must("127.0.0.1:0") }}}
		out := run(t, l.enforcer(), "bind", kind, "0.0.0.0:0")
		require.Equal(t, "ok 127.0.0.1 true", strings.Split(out, "\n")[0])
		require.Equal(t, netip.MustParseAddr("127.0.0.1"), l.seen[1].Local.Addr())
	}
}

// SC-114: bind() and listen() fail.
func TestBindAndListenAreBlocked(t *testing.T) {
	l := &layers{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){
		fwpm.LayerALEResourceAssignmentV4: blockIf(func(in *fwps.Incoming) bool { return in.Local.Addr() == netip.MustParseAddr("127.0.0.2") }),
		fwpm.LayerALEAuthListenV4:         blockIf(func(in *fwps.Incoming) bool { return in.Local.Addr() == netip.MustParseAddr("127.0.0.3") }),
	}}
	var denied []enforce.Denial
	opts := Options{ALE: l.enforcer(), OnBlocked: func(d enforce.Denial) { denied = append(denied, d) }}
	out, _ := supervise(t, opts, helper("bind", "tcp", "127.0.0.2:1", "127.0.0.3:0", "127.0.0.4:0"))
	require.Equal(t, "EACCES 0.0.0.0 false\nok 127.0.0.3 true\nEACCES\nok 127.0.0.4 true\nok\n", out)
	require.Len(t, denied, 2)
	require.Equal(t, must("127.0.0.2:1"), denied[0].Local)
	require.Equal(t, netip.MustParseAddr("127.0.0.3"), denied[1].Local.Addr())
	out, _ = supervise(t, opts, helper("bind", "udp", "127.0.0.2:1"))
	require.Equal(t, "EACCES 0.0.0.0 false\n", out)
}

// A listener that was not bound is bound first.
func TestListenBinds(t *testing.T) {
	l := &layers{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){
		fwpm.LayerALEResourceAssignmentV4: blockIf(func(*fwps.Incoming) bool { return true })}}
	require.Contains(t, run(t, l.enforcer(), "bind errnos", listen(t).addr.String()), "listen EACCES\n")
}
