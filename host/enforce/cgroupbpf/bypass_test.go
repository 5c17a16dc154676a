//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/enforce/internal/bypass"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// reached are what came of connections or datagrams at a port.
func reached(t *testing.T, kind int) (at netip.AddrPort, count func() int) {
	fd := socket(unix.AF_INET, kind|unix.SOCK_NONBLOCK, 0)
	t.Cleanup(func() { unix.Close(fd) })
	require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	sa, err := unix.Getsockname(fd)
	require.NoError(t, err)
	if kind == unix.SOCK_STREAM {
		require.NoError(t, unix.Listen(fd, 64))
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*unix.SockaddrInet4).Port)), func() (n int) {
		for b := make([]byte, 16); ; n++ {
			var err error
			if kind == unix.SOCK_STREAM {
				var c int
				if c, _, err = unix.Accept(fd); err == nil {
					unix.Close(c)
				}
			} else {
				_, _, err = unix.Recvfrom(fd, b, 0)
			}
			if err != nil {
				require.ErrorIs(t, err, unix.EAGAIN)
				return n
			}
		}
	}
}

// arrive waits until as many have come, and no more. What is acknowledged may be in the
// kernel's queue yet, on a machine that is busy.
func arrive(t *testing.T, count func() int, want int) {
	got := count()
	for end := time.Now().Add(time.Minute); got < want && time.Now().Before(end); time.Sleep(time.Millisecond) {
		got += count()
	}
	require.Equal(t, want, got+count(), "what arrives")
}

// native runs the helper outside of the cgroup.
func native(t *testing.T, arg string, files ...*os.File) string {
	cmd := exec.CommandContext(t.Context(), os.Args[0], arg)
	cmd.ExtraFiles = files
	cmd.Env = append(os.Environ(), "CALLOUTD_HELPER=1", "GORACE=atexit_sleep_ms=0")
	out, err := cmd.Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}

// blocking is a site that blocks a port, by the kernel or, with a callout that is asked
// about everything, by the engine.
func blocking(t *testing.T, p uint16, asks bool) *site {
	policy := &fwpm.Policy{Filters: []fwpm.Filter{filter(3, authConnect, fwp.ActionBlock, port(p))}}
	if !asks {
		return newSite(t, policy, nil)
	}
	policy.Callouts, policy.Filters = []fwpm.Callout{{ID: "c"}}, append(policy.Filters, askAll()...)
	return newSite(t, policy, toProxies(netip.AddrPort{}, netip.AddrPort{}))
}

// A way that some kernels do not have.
var absent = []string{"ENOSYS", "ENOENT", "EPERM", "EAFNOSUPPORT", "EPROTONOSUPPORT", "setup ENOSYS", "setup EPERM"}

// A way is one of bypasses, and what it comes to.
type way struct {
	name         string
	kind         int
	native, want string
	there        int // how often it is reached where nothing is attached
}

// try tries it where nothing is attached, and where it is blocked by the kernel's part and
// by the engine.
func (w way) try(t *testing.T) {
	if runtime.GOARCH != "amd64" && bypasses[w.name] == nil {
		t.Skip("of another architecture")
	}
	require.NotNil(t, bypasses[w.name])
	at, count := reached(t, w.kind)
	arg, missing := w.name+"/"+at.String(), false
	got := native(t, arg)
	if missing = slices.Contains(absent, got); missing {
		t.Logf("this kernel has it not: %s", got)
	} else {
		require.Equal(t, w.native, got)
	}
	if !missing {
		arrive(t, count, w.there)
	}
	for _, asks := range []bool{false, true} {
		s := blocking(t, at.Port(), asks)
		a := s.attach(t)
		got := s.run(t, arg)[0]
		if missing {
			require.Contains(t, append(absent, "EACCES"), got)
		} else {
			require.Eventually(t, func() bool { d, _ := s.told(); return len(d) > 0 || got == "ENETUNREACH" }, time.Minute, time.Millisecond, got)
		}
		if !asks && !missing {
			require.Equal(t, w.want, got)
		}
		require.NoError(t, a.Close())
		require.Zero(t, count(), "%v %s", asks, got)
	}
}

// No way of connecting or sending reaches what is blocked: by the kernel's part, which
// says so, or by the engine.
func TestBypass(t *testing.T) {
	for _, w := range []way{
		{name: "uring", kind: unix.SOCK_STREAM, native: "ok", want: "EACCES", there: 1},
		{name: "uring-sendmsg", kind: unix.SOCK_DGRAM, native: "ok", want: "EACCES", there: 1},
		{name: "fastopen", kind: unix.SOCK_STREAM, native: "ok ok ok", want: "EACCES EACCES EACCES", there: 3},
		{name: "deferred", kind: unix.SOCK_STREAM, native: "ok", want: "EACCES", there: 1},
		{name: "mptcp", kind: unix.SOCK_STREAM, native: "ok", want: "EACCES", there: 1},
		{name: "x32", kind: unix.SOCK_STREAM, native: "ok", want: "EACCES", there: 1},
		{name: "sendmmsg", kind: unix.SOCK_DGRAM, native: "2 ok", want: "1 ok", there: 1},
		{name: "udplite", kind: unix.SOCK_DGRAM, native: "ok ok", want: "EACCES"}, // Its connect() does not pass the hooks.
		{name: "device", kind: unix.SOCK_STREAM, native: "ok", want: "EACCES", there: 1},
		{name: "v6only", kind: unix.SOCK_STREAM, native: "ENETUNREACH", want: "EACCES"},
		{name: "reuse", kind: unix.SOCK_DGRAM, native: "ok ok ok ok ok", want: "ok EACCES ok EACCES EACCES", there: 1},
		{name: "unconnected", kind: unix.SOCK_DGRAM, native: "ok ok", want: "ok EACCES", there: 1},
		{name: "raw", kind: unix.SOCK_STREAM, native: "ok", want: "EACCES"},
	} {
		t.Run(w.name, func(t *testing.T) { w.try(t) })
	}
}

// Of a family of which nothing is blocked a raw socket may be made; and none by a
// program when the policy says nothing to anybody.
func TestRawSocketsOfWhatIsPermitted(t *testing.T) {
	s := blocking(t, 25, false)
	defer s.attach(t).Close()
	require.Equal(t, []string{"ok", "EACCES"}, s.run(t, "raw6/[::1]:1", "raw/127.0.0.1:1"))
	require.Eventually(t, func() bool { d, _ := s.told(); return len(d) == 1 }, time.Minute, time.Millisecond)
	denials, _ := s.told()
	require.Contains(t, denials[0], `by filter 3 "f" (ARB-01): a raw socket of protocol 6 can send where the policy blocks it`)

	open := newSite(t, new(fwpm.Policy), nil)
	defer open.attach(t).Close()
	require.Equal(t, []string{"ok", "ok"}, open.run(t, "raw6/[::1]:1", "raw/127.0.0.1:1"))
}

// What pings is decided as what is neither TCP nor UDP.
func TestPingSockets(t *testing.T) {
	tcp := condition(fwpm.ConditionIPProtocol, fwp.U8(fwps.ProtocolTCP))
	for want, conditions := range map[string][]fwpm.Condition{"ok": {port(25), tcp}, "EACCES": {condition(fwpm.ConditionIPRemoteAddress, net198)}} {
		s := newSite(t, &fwpm.Policy{Filters: []fwpm.Filter{filter(3, authConnect, fwp.ActionBlock, conditions...)}}, nil)
		a := s.attach(t)
		require.Equal(t, []string{want}, s.start(t, unix.CLONE_NEWNET, "ping/127.0.0.1:1").end())
		require.NoError(t, a.Close())
	}
}

// Calls of i386 by a program of x86-64 pass the same hooks.
func TestBypassI386(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("x86-64 only")
	}
	bin, err := bypass.BuildInt80(t.TempDir(), enforcetest.Tool(t, "gcc"))
	require.NoError(t, err)
	at, count := reached(t, unix.SOCK_STREAM)
	in := func(s *site) string {
		cmd := exec.CommandContext(t.Context(), bin, strconv.Itoa(int(at.Port())))
		if s != nil {
			dir, err := os.Open(s.cgroup)
			require.NoError(t, err)
			defer dir.Close()
			cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
		}
		out, err := cmd.Output()
		require.NoError(t, err)
		return string(out)
	}
	if got := in(nil); strings.Contains(got, "connect -38") {
		t.Logf("this kernel has no i386 calls")
		return
	}
	arrive(t, count, 3)
	s := blocking(t, at.Port(), false)
	defer s.attach(t).Close()
	require.Equal(t, "connect -13\nsocketcall -13\nsocketcall sendto -13\n", in(s))
	require.Zero(t, count())
}

// A socket that is bound to a device from which calloutd is not reached is refused at
// once, and not when the connection times out.
func TestSocketsBoundToADevice(t *testing.T) {
	s := namespaceSite(t)
	defer s.attach(t).Close()
	require.Equal(t, []string{"up", "EACCES EACCES"}, s.start(t, unix.CLONE_NEWNET, "up/", "veth/198.51.100.7:80").end())
	require.Eventually(t, func() bool { d, _ := s.told(); return len(d) == 2 }, time.Minute, time.Millisecond)
	denials, _ := s.told()
	require.Contains(t, denials[0], "its socket is bound to a device")
	require.Equal(t, []string{"ok"}, s.run(t, "device/198.51.100.7:80"), "loopback is not in the way")
}

// A socket that is connected anew has nothing of the redirect before.
func TestSocketsThatAreConnectedAnew(t *testing.T) {
	origin := greet(t, "tcp4", "127.0.0.1:0", "origin", nil)
	proxy := greet(t, "tcp4", "127.0.0.1:0", "proxy", nil)
	redirect := fwpm.Filter{ID: 1, Name: "f", Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutUnknown, Callout: "c", Conditions: []fwpm.Condition{condition(fwpm.ConditionIPRemoteAddress, net198)}}
	s := newSite(t, &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: []fwpm.Filter{redirect}}, redirecting(func(bool) netip.AddrPort { return proxy }))
	defer s.attach(t).Close()
	require.Equal(t, []string{"ok ok ok true"}, s.run(t, "stale/"+origin.String()))
}

// A socket belongs to the cgroup that it was made in, also before: outside it is decided
// like inside, and one that somebody outside gave to a program is not the cgroup's.
func TestSocketsBelongToTheirCgroup(t *testing.T) {
	at, count := reached(t, unix.SOCK_STREAM)
	s := blocking(t, at.Port(), false)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	require.Equal(t, []string{"ok"}, s.with(t, theirs, "passes/"+at.String()))
	defer s.attach(t).Close()
	require.Equal(t, "EACCES", native(t, "passed/"+at.String(), ours), "made inside, before")

	require.Equal(t, []string{"ok"}, s.with(t, theirs, "passes/"+at.String()))
	require.Equal(t, "EACCES", native(t, "passed/"+at.String(), ours), "made inside")
	require.Zero(t, count())

	fd := socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	defer unix.Close(fd)
	require.NoError(t, unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(fd), nil, 0))
	require.Equal(t, []string{"ok"}, s.with(t, theirs, "passed/"+at.String()), "made outside")
}

// with runs the helper in the cgroup with a file as descriptor 3.
func (s *site) with(t *testing.T, f *os.File, args ...string) []string {
	h := s.prepare(t, 0, args...)
	h.cmd.ExtraFiles = []*os.File{f}
	require.NoError(t, h.cmd.Start())
	return h.end()
}
