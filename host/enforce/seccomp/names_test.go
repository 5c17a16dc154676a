//go:build linux && (amd64 || arm64)

package seccomp

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

func init() {
	// names: connect and say what the peer is called, also after a reconnect.
	programs["names"] = func(args []string) {
		for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
			fd := newSocket(unix.AF_INET, kind)
			for _, a := range args {
				say(name(sysConnect(fd, sockaddrOf(must(a)))), peer(fd))
				say(name(sysConnect(fd, make([]byte, 16))), peer(fd))
			}
		}
	}
	programs["bound name"] = func([]string) {
		fd := newSocket(unix.AF_INET, unix.SOCK_STREAM)
		say(name(sysBind(fd, sockaddrOf(must("0.0.0.0:0")))))
		_, local, e := getName(fd)
		say(name(e), local.Addr(), local.Port() != 0)
	}
}

func peer(fd int) any {
	sa, err := unix.Getpeername(fd)
	if err != nil {
		return err
	}
	in := sa.(*unix.SockaddrInet4)
	return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port))
}

func TestRequestedNamesAreShown(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "proxy")
	opts := Options{ALE: redirectTo(p), ShowRequested: true}
	out, _ := supervise(t, opts, helper("names", test4, p.String()))
	want := "ok " + test4 + "\nok transport endpoint is not connected\nok " + p.String() + "\nok transport endpoint is not connected\n"
	require.Equal(t, want+want, out)

	out, _ = supervise(t, opts, exec.Command(enforcetest.Tool(t, "python3"), "-c", "import socket; print(socket.create_connection(('203.0.113.10', 80)).getpeername())"))
	require.Equal(t, "('203.0.113.10', 80)\n", out)

	out, _ = supervise(t, Options{ALE: redirectTo(p)}, helper("names", test4))
	require.Equal(t, strings.ReplaceAll(want, test4, p.String()), out, "without the option the truth is told")
}

func TestRequestedBindIsShown(t *testing.T) {
	l := &layers{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){
		fwpm.LayerALEBindRedirectV4: func(_ *fwps.Incoming, d *fwps.Decision) { d.PushBind().Local = must("127.0.0.1:0") }}}
	out, _ := supervise(t, Options{ALE: l.enforcer(), ShowRequested: true}, helper("bound name"))
	require.Equal(t, "ok\nok 0.0.0.0 true\n", out)
	out, _ = supervise(t, Options{ALE: l.enforcer()}, helper("bound name"))
	require.Equal(t, "ok\nok 127.0.0.1 true\n", out)
}
