//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// The test binary is the program in the cgroup: it connects or sends to each
// address and prints what came of it.
func TestMain(m *testing.M) {
	enforcetest.Client()
	if os.Getenv("CALLOUTD_HELPER") == "" {
		os.Exit(m.Run())
	}
	if n, err := strconv.Atoi(os.Args[1]); err == nil {
		fmt.Println(connects(n, os.Args[2]))
		return
	}
	for _, arg := range os.Args[1:] {
		network, to, _ := strings.Cut(arg, "/")
		fmt.Println(try(network, to))
	}
}

// throws connects, sends and closes, again and again.
func throws(n, to string) string {
	for count, _ := strconv.Atoi(n); count > 0; count-- {
		c, err := net.Dial("tcp4", to)
		if err != nil {
			return err.Error()
		}
		_, err = c.Write([]byte("x"))
		if err := errors.Join(err, c.Close()); err != nil {
			return err.Error()
		}
	}
	return "ok"
}

// hammer connects until its standard input ends.
func hammer(to string) string {
	tries, through := 0, 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	for {
		c, err := net.Dial("tcp", to)
		tries++
		if err == nil {
			through++
			c.Close()
		}
		select {
		case <-done:
			return fmt.Sprint(tries, through)
		default:
		}
	}
}

func try(network, to string) string {
	if bypass := bypasses[network]; bypass != nil {
		return bypass(netip.MustParseAddrPort(to))
	}
	if n, throw := strings.CutPrefix(network, "throws"); throw {
		return throws(n, to)
	}
	switch network {
	case "hammer":
		return hammer(to)
	case "up":
		return up()
	case "stdin":
		_, _ = io.Copy(io.Discard, os.Stdin)
		return "told"
	case "patiently":
		network, to, _ := strings.Cut(to, "/")
		return patiently(network, to)
	case "leaves":
		return leaves(to)
	case "sends":
		return sends(strings.Split(to, ","))
	case "mapped":
		return sendsMapped(netip.MustParseAddrPort(to), true)
	case "mapped-sends":
		return sendsMapped(netip.MustParseAddrPort(to), false)
	}
	var d net.Dialer
	network, at, bound := strings.Cut(network, "@") // tcp@127.0.0.1:40000/...
	if bound {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.MustParseAddrPort(at))
	}
	c, err := d.Dial(network, to)
	var errno unix.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if strings.HasPrefix(network, "udp") {
		if _, err := c.Write([]byte("x")); errors.As(err, &errno) {
			return unix.ErrnoName(errno)
		}
	}
	b := make([]byte, 64)
	n, err := c.Read(b)
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return fmt.Sprintf("%s from %s", b[:n], c.RemoteAddr())
}

// sends sends to each address from one socket that is not connected, twice, and says
// what is answered, and from where.
func sends(to []string) string {
	network := "udp4"
	if netip.MustParseAddrPort(to[0]).Addr().Is6() {
		network = "udp6"
	}
	c, err := net.ListenPacket(network, ":0")
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	var said []string
	for _, a := range append(to, to...) {
		_, err := c.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(a)))
		if errno := unix.Errno(0); errors.As(err, &errno) {
			said = append(said, unix.ErrnoName(errno))
			continue
		}
		b := make([]byte, 64)
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return err.Error()
		}
		said = append(said, fmt.Sprintf("%s from %s", b[:n], from))
	}
	return strings.Join(said, ", ")
}

// sendsMapped sends to an address from a socket of IPv6, connected or not.
func sendsMapped(to netip.AddrPort, connected bool) string {
	answer, err := func() (string, error) {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return "", err
		}
		defer unix.Close(fd)
		sa := &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
		if connected {
			err = unix.Connect(fd, sa)
			if err == nil {
				_, err = unix.Write(fd, []byte("x"))
			}
		} else {
			err = unix.Sendto(fd, []byte("x"), 0, sa)
		}
		if err != nil {
			return "", err
		}
		b := make([]byte, 64)
		n, from, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			return "", err
		}
		sa = from.(*unix.SockaddrInet6)
		return fmt.Sprintf("%s from %s", b[:n], netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))), nil
	}()
	if errno := unix.Errno(0); errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return answer
}

// connects is how long n connects take, in nanoseconds each.
func connects(n int, to string) float64 {
	a := netip.MustParseAddrPort(to)
	sa := &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	var spent time.Duration
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			panic(err)
		}
		start := time.Now()
		if err := unix.Connect(fd, sa); err != nil {
			panic(err)
		}
		spent += time.Since(start)
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		unix.Close(fd)
	}
	return float64(spent.Nanoseconds()) / float64(n)
}

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

// A program's connect is redirected, whatever its family, and it believes to be
// where it wanted to go; the proxy finds the records.
func TestCalloutRedirects(t *testing.T) {
	contexts, ready := make(chan string, 8), make(chan struct{})
	var s *site
	accepted := func(c *net.TCPConn) {
		<-ready // What the program's connect tells goes through the kernel, where Go does not see it.
		f, err := s.ale.Accept(context.Background(), fwps.Incoming{Protocol: fwps.ProtocolTCP,
			Local: c.LocalAddr().(*net.TCPAddr).AddrPort(), Remote: c.RemoteAddr().(*net.TCPAddr).AddrPort()})
		if err != nil || len(f.Records) == 0 {
			contexts <- fmt.Sprint("no records: ", err)
			return
		}
		contexts <- string(f.Records.Last().Context) + " " + f.Original.String()
		f.Close()
	}
	p4, p6 := greet(t, "tcp4", "127.0.0.1:0", "proxy", accepted), greet(t, "tcp6", "[::1]:0", "proxy", accepted)
	s = newSite(t, &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: askAll()}, redirecting(func(v6 bool) netip.AddrPort {
		if v6 {
			return p6
		}
		return p4
	}))
	close(ready)
	defer s.attach(t).Close()
	for _, to := range []string{"198.51.100.7:80", "[2001:db8::7]:80"} {
		require.Equal(t, []string{"proxy from " + to}, s.run(t, "tcp/"+to))
		require.Equal(t, "for the proxy "+to, <-contexts)
	}
}

func TestStaticFilters(t *testing.T) {
	origin := greet(t, "tcp4", "127.0.0.1:0", "origin", nil)
	dns, other := greet(t, "udp4", "127.0.0.1:0", "answer", nil), greet(t, "udp4", "127.0.0.1:0", "other", nil)
	s := newSite(t, &fwpm.Policy{Filters: []fwpm.Filter{
		filter(1, authConnect, fwp.ActionBlock, port(25)),
		filter(2, authConnect, fwp.ActionBlock, port(other.Port()), condition(fwpm.ConditionIPProtocol, fwp.U8(fwps.ProtocolUDP))), // origin's may be the same.
		filter(3, fwpm.LayerALEAuthConnectV6, fwp.ActionBlock, port(4444), condition(fwpm.ConditionALEAppID, fwp.Blob("/bin/x"))),
	}}, nil)
	defer s.attach(t).Close()
	got := s.run(t, "tcp/"+origin.String(), "tcp/127.0.0.1:25", "udp/"+dns.String(), "udp/"+other.String(), "udp/[::1]:4444")
	require.Equal(t, []string{"origin from " + origin.String(), "EACCES", "answer from " + dns.String(), "EACCES", "EACCES"}, got)
	require.Eventually(t, func() bool { d, _ := s.told(); return len(d) >= 3 }, time.Minute, time.Millisecond)
	denials, asked := s.told()
	require.Zero(t, asked, "the kernel decides by itself")
	require.Contains(t, denials[0], `blocked at ALE_AUTH_CONNECT_V4 by filter 1 "f" (ARB-01)`)
	require.Contains(t, denials[2], "only the program's path can decide it, and that works in a cgroup for TCP")
}

// Of a program that has ended before anybody could look, its account has what the kernel
// knows, marked as that.
func TestProgramsThatHaveEnded(t *testing.T) {
	s := newSite(t, &fwpm.Policy{Filters: []fwpm.Filter{filter(1, authConnect, fwp.ActionBlock, port(25))}}, nil)
	var who []string
	ended := make(chan struct{})
	s.opts.OnBlocked = func(d enforce.Denial) {
		<-ended
		who = append(who, d.AppID)
	}
	a := s.attach(t)
	require.Equal(t, []string{"EACCES", "EACCES"}, s.run(t, "tcp/127.0.0.1:25", "udp/127.0.0.1:25"))
	close(ended)
	require.NoError(t, a.Close())
	require.Len(t, who, 2)
	name := filepath.Base(os.Args[0])
	require.Equal(t, fmt.Sprintf("[%s, user 0, ended]", name[:min(len(name), 15)]), who[1])
}

// What only the engine can decide and it blocks ends in a reset.
func TestEngineBlocks(t *testing.T) {
	exe, err := os.Readlink("/proc/self/exe")
	require.NoError(t, err)
	origin := greet(t, "tcp4", "127.0.0.1:0", "origin", nil)
	s := newSite(t, &fwpm.Policy{Filters: []fwpm.Filter{
		filter(1, authConnect, fwp.ActionBlock, port(origin.Port()), condition(fwpm.ConditionALEAppID, fwp.Blob(exe))),
	}}, nil)
	defer s.attach(t).Close()
	require.Equal(t, []string{"ECONNRESET"}, s.run(t, "tcp/"+origin.String()))
	denials, _ := s.told()
	require.Len(t, denials, 1)
	require.Contains(t, denials[0], `by filter 1 "f"`)
}

// A connection to the daemon's port that the kernel did not send is refused.
func TestStrangerIsRefused(t *testing.T) {
	s := newSite(t, &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: askAll()}, redirecting(func(bool) netip.AddrPort { return netip.AddrPort{} }))
	a := s.attach(t)
	defer a.Close()
	require.Equal(t, "ECONNRESET", try("tcp", own(a).listen[ip4].Addr().String()))
}

func TestUpdate(t *testing.T) {
	origin := greet(t, "tcp4", "127.0.0.1:0", "origin", nil)
	s := newSite(t, new(fwpm.Policy), nil)
	a := s.attach(t)
	defer a.Close()
	for _, blocked := range []bool{false, true, false, true} {
		p, want := new(fwpm.Policy), "origin from "+origin.String()
		if blocked {
			p.Filters, want = []fwpm.Filter{filter(1, authConnect, fwp.ActionBlock, port(origin.Port()))}, "EACCES"
		}
		require.NoError(t, a.Update(p))
		require.Equal(t, []string{want}, s.run(t, "tcp/"+origin.String()))
	}
}

// Programs that somebody else attached go on working; both must permit.
func TestCoexists(t *testing.T) {
	origin := greet(t, "tcp4", "127.0.0.1:0", "origin", nil)
	s := newSite(t, new(fwpm.Policy), nil)
	deny, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	require.NoError(t, err)
	defer deny.Close()
	l, err := link.AttachCgroup(link.CgroupOptions{Path: s.cgroup, Attach: ebpf.AttachCGroupInet4Connect, Program: deny})
	require.NoError(t, err)
	a := s.attach(t)
	require.Equal(t, []string{"EPERM"}, s.run(t, "tcp/"+origin.String()))
	require.NoError(t, l.Close())
	require.Equal(t, []string{"origin from " + origin.String()}, s.run(t, "tcp/"+origin.String()))
	require.NoError(t, a.Close())
	require.Equal(t, []string{"origin from " + origin.String()}, s.run(t, "tcp/"+origin.String()), "nothing is left")
}

// Many connections at once lose nothing, and leave no record behind.
func TestManyAtOnce(t *testing.T) {
	origin := greet(t, "tcp4", "127.0.0.1:0", "origin", nil)
	permit := fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error { v.Action = fwp.ActionPermit; return nil })
	s := newSite(t, &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: askAll()}, permit)
	a := s.attach(t)
	defer a.Close()
	args := make([]string, 100)
	for i := range args {
		args[i] = "tcp/" + origin.String()
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, line := range s.run(t, args...) {
				if line != "origin from "+origin.String() {
					t.Error(line)
				}
			}
		})
	}
	wg.Wait()
	var k [40]byte
	require.ErrorIs(t, a.objs.Waiting.NextKey(nil, &k), ebpf.ErrKeyNotExist)
}

// What a program sends and forgets arrives, although it has closed the connection, or
// ended, before it is accepted.
func TestFireAndForget(t *testing.T) {
	const n = 200
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	got := make(chan string, n)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(c)
			c.Close()
			got <- string(b)
		}
	}()
	permit := fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error { v.Action = fwp.ActionPermit; return nil })
	s := newSite(t, &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: askAll()}, permit)
	a := s.attach(t)
	defer a.Close()
	require.Equal(t, []string{"ok"}, s.run(t, fmt.Sprintf("throws%d/%s", n, l.Addr())))
	for range n {
		require.Equal(t, "x", <-got)
	}
	var k [40]byte
	require.ErrorIs(t, a.objs.Waiting.NextKey(nil, &k), ebpf.ErrKeyNotExist)
}

// BenchmarkConnect is connect() to a loopback server: without the programs, with
// a permit that the kernel gives, and with one that the engine gives.
func BenchmarkConnect(b *testing.B) {
	origin := greet(b, "tcp4", "127.0.0.1:0", "origin", nil).String()
	permit := fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error { v.Action = fwp.ActionPermit; return nil })
	static := &fwpm.Policy{}
	for id := 1; id <= 100; id++ {
		static.Filters = append(static.Filters, filter(id, authConnect, fwp.ActionBlock, condition(fwpm.ConditionIPRemoteAddress, fwp.Mask(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(id)}), 16)))))
	}
	for _, c := range []struct {
		name   string
		policy *fwpm.Policy
	}{{"plain", nil}, {"kernel", static}, {"engine", &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: askAll()}}} {
		b.Run(c.name, func(b *testing.B) {
			policy := c.policy
			if policy == nil {
				policy = new(fwpm.Policy)
			}
			var callout fwps.Callout
			if len(policy.Callouts) > 0 {
				callout = permit
			}
			s := newSite(b, policy, callout)
			if c.policy != nil {
				defer s.attach(b).Close()
			}
			ns, err := strconv.ParseFloat(s.run(b, strconv.Itoa(b.N), origin)[0], 64)
			require.NoError(b, err)
			b.ReportMetric(ns, "ns/connect")
		})
	}
}

// What the tests above need is what Probe finds.
func TestProbe(t *testing.T) {
	newSite(t, &fwpm.Policy{}, nil) // Skips where it cannot work.
	cs := Probe()
	require.NoError(t, enforce.Missing(cs, enforce.CommandAttach))
	for _, c := range cs {
		require.NotEmpty(t, c.Detail)
		require.Equal(t, c.Supported, c.Why == "", c.Name)
	}
}

func TestOnlyCgroupsHavePrograms(t *testing.T) {
	opts := Options{ALE: ale.New(ale.Options{Classifier: host.New(host.Options{}), Store: memstore.New(0)}), Policy: new(fwpm.Policy)}
	opts.Cgroup = t.TempDir()
	_, err := Attach(t.Context(), opts)
	require.ErrorContains(t, err, opts.Cgroup+" is in no cgroup v2 hierarchy")
	opts.Cgroup += "/none"
	_, err = Attach(t.Context(), opts)
	require.ErrorIs(t, err, fs.ErrNotExist)
}
