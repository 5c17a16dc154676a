//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// A site is a cgroup, an engine and what they told.
type site struct {
	cgroup  string
	engine  *host.Engine
	ale     *ale.Enforcer
	opts    Options
	mu      sync.Mutex
	denials []string
	asked   int
}

// newSite makes a cgroup. It skips where the kernel cannot, and only there.
func newSite(t testing.TB, p *fwpm.Policy, callout fwps.Callout) *site {
	t.Helper()
	root := cgroupRoot()
	if root == "" || os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("CI runs as root with a cgroup v2 hierarchy")
		}
		t.Skip("needs root and a cgroup v2 hierarchy")
	}
	dir, err := os.MkdirTemp(root, "calloutd-test-")
	require.NoError(t, err)
	s := &site{cgroup: dir}
	t.Cleanup(func() { s.remove(t) })
	s.engine = host.New(host.Options{OnDecision: func(in *fwps.Incoming, _ *fwps.Decision) {
		if in.Layer.IsConnectRedirect() {
			s.mu.Lock()
			s.asked++
			s.mu.Unlock()
		}
	}})
	if callout != nil {
		_, _, err := s.engine.RegisterCallout("c", callout)
		require.NoError(t, err)
	}
	require.NoError(t, s.engine.Update(func(x *fwpm.Policy) error { *x = *p.Clone(); return nil }))
	s.ale = ale.New(ale.Options{Classifier: s.engine, Store: memstore.New(0)})
	s.opts = Options{Cgroup: s.cgroup, ALE: s.ale, Policy: p, Logf: t.Logf, OnBlocked: func(d enforce.Denial) {
		s.mu.Lock()
		s.denials = append(s.denials, d.Err.Error())
		s.mu.Unlock()
	}}
	return s
}

// remove removes the cgroup. A program that has ended can be in it for a moment yet.
func (s *site) remove(t testing.TB) {
	require.Eventually(t, func() bool { return os.Remove(s.cgroup) == nil }, time.Minute, time.Millisecond)
}

func cgroupRoot() string {
	for _, dir := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			return dir
		}
	}
	return ""
}

func (s *site) attach(t testing.TB) *Attachment {
	t.Helper()
	a, err := Attach(t.Context(), s.opts)
	if errors.Is(err, enforce.ErrNotSupported) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	require.NoError(t, err)
	return a
}

// run runs the helper in the cgroup.
func (s *site) run(t testing.TB, args ...string) []string {
	t.Helper()
	return s.start(t, 0, args...).end()
}

// A helper is one that runs.
type helper struct {
	t     testing.TB
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
}

// start starts the helper in the cgroup, in new namespaces.
func (s *site) start(t testing.TB, namespaces uintptr, args ...string) *helper {
	t.Helper()
	h := s.prepare(t, namespaces, args...)
	require.NoError(t, h.cmd.Start())
	return h
}

func (s *site) prepare(t testing.TB, namespaces uintptr, args ...string) *helper {
	t.Helper()
	dir, err := os.Open(s.cgroup)
	require.NoError(t, err)
	t.Cleanup(func() { dir.Close() })
	h := &helper{t: t, cmd: exec.CommandContext(t.Context(), os.Args[0], args...)}
	h.cmd.Env = append(os.Environ(), "CALLOUTD_HELPER=1", "GORACE=atexit_sleep_ms=0") // or each takes a second
	h.cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Cloneflags: namespaces}
	h.cmd.Stderr = os.Stderr
	h.stdin, err = h.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := h.cmd.StdoutPipe()
	require.NoError(t, err)
	h.out = bufio.NewReader(out)
	return h
}

// line is what it says next.
func (h *helper) line() string {
	line, err := h.out.ReadString('\n')
	require.NoError(h.t, err)
	return strings.TrimSpace(line)
}

// end closes its standard input and returns what it says until it ends.
func (h *helper) end() []string {
	h.t.Helper()
	h.stdin.Close()
	out, err := io.ReadAll(h.out)
	require.NoError(h.t, err)
	require.NoError(h.t, h.cmd.Wait())
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// own is where calloutd listens in its own network namespace.
func own(a *Attachment) *home { return a.homeOf(netnsCookie()) }

func (s *site) told() (denials []string, asked int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.denials...), s.asked
}

// greet serves a word to whoever connects or sends.
func greet(t testing.TB, network, at, word string, before func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	if strings.HasPrefix(network, "udp") {
		c, err := net.ListenPacket(network, at)
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		go answers(c, word)
		return c.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), network, at)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go says(l, word, before)
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func answers(c net.PacketConn, word string) {
	b := make([]byte, 64)
	for {
		_, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		_, _ = c.WriteTo([]byte(word), from)
	}
}

func says(l net.Listener, word string, before func(*net.TCPConn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		if before != nil {
			before(c.(*net.TCPConn))
		}
		_, _ = c.Write([]byte(word))
		c.Close()
	}
}

func port(p uint16) fwpm.Condition { return condition(fwpm.ConditionIPRemotePort, fwp.U16(p)) }

// redirecting sends everything to a proxy.
func redirecting(to func(v6 bool) netip.AddrPort) fwps.Callout {
	return fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		a := to(c.In.Remote.Addr().Is6() && !c.In.Remote.Addr().Is4In6())
		if c.In.Remote.Addr().Is4In6() {
			a = netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
		}
		v.Action, v.Redirect, v.To, v.TargetPID = fwp.ActionPermit, true, a, uint32(os.Getpid())
		v.Context = append(v.Context, "for the proxy"...)
		return nil
	})
}

func askAll() []fwpm.Filter {
	return []fwpm.Filter{
		{ID: 1, Name: "v4", Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutUnknown, Callout: "c"},
		{ID: 2, Name: "v6", Layer: fwpm.LayerALEConnectRedirectV6, Action: fwp.ActionCalloutUnknown, Callout: "c"},
	}
}
