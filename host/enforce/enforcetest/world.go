package enforcetest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

var networks = []string{"tcp4", "tcp6", "udp4", "udp6"}

// A world has the servers that a policy speaks of, by network.
type world struct {
	origin, forbidden, proxy map[string]netip.AddrPort
	listeners                map[string]net.Listener   // of the TCP proxies
	packets                  map[string]net.PacketConn // of the UDP proxies
	exe                      string
}

func newWorld(t *testing.T, b Backend) *world {
	exe, err := os.Executable()
	require.NoError(t, err)
	w := &world{exe: exe, origin: map[string]netip.AddrPort{}, forbidden: map[string]netip.AddrPort{}, proxy: map[string]netip.AddrPort{},
		listeners: map[string]net.Listener{}, packets: map[string]net.PacketConn{}}
	place := here
	if p, ok := b.(Placer); ok {
		place = p.Place
	}
	for _, n := range networks {
		l, p := open(t, n, place)
		w.origin[n] = answer(t, l, p, func(net.Addr, net.Addr) string { return permitted })
		l, p = open(t, n, place)
		w.forbidden[n] = answer(t, l, p, func(net.Addr, net.Addr) string { return "forbidden" })
		l, p = open(t, n, here)
		for addrOf(l, p).Port() == w.forbidden[n].Port() { // In another network it may be: nobody could be sent there.
			t.Cleanup(closer(l, p))
			l, p = open(t, n, here)
		}
		w.listeners[n], w.packets[n], w.proxy[n] = l, p, addrOf(l, p)
	}
	return w
}

// here is where the proxies are, and the servers of a backend that is no Placer.
func here(network string, listen func(host string)) {
	host := "127.0.0.1"
	if strings.HasSuffix(network, "6") {
		host = "::1"
	}
	listen(host)
}

func open(t *testing.T, network string, place func(string, func(string))) (l net.Listener, p net.PacketConn) {
	place(network, func(host string) {
		at := net.JoinHostPort(host, "0")
		var err error
		if strings.HasPrefix(network, "udp") {
			p, err = net.ListenPacket(network, at)
		} else {
			lc := net.ListenConfig{}
			lc.SetMultipathTCP(false)
			l, err = lc.Listen(t.Context(), network, at)
		}
		require.NoError(t, err)
	})
	return l, p
}

func addrOf(l net.Listener, p net.PacketConn) netip.AddrPort {
	if l != nil {
		return l.Addr().(*net.TCPAddr).AddrPort()
	}
	return p.LocalAddr().(*net.UDPAddr).AddrPort()
}

func closer(l net.Listener, p net.PacketConn) func() {
	if l != nil {
		return func() { l.Close() }
	}
	return func() { p.Close() }
}

// answer tells whoever comes what say returns.
func answer(t *testing.T, l net.Listener, p net.PacketConn, say func(local, remote net.Addr) string) netip.AddrPort {
	done, end := make(chan struct{}), closer(l, p)
	t.Cleanup(func() { end(); <-done })
	go func() {
		defer close(done)
		for b := make([]byte, 64); ; {
			if p != nil {
				_, from, err := p.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = p.WriteTo([]byte(say(p.LocalAddr(), from)), from)
				continue
			}
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(say(c.LocalAddr(), c.RemoteAddr())))
			c.Close()
		}
	}()
	return addrOf(l, p)
}

// policy is what all sites enforce.
func (w *world) policy() *fwpm.Policy {
	p := &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "to the proxy", Name: "to the proxy"}}}
	filter := func(name string, l fwpm.LayerID, action fwp.Action, conditions ...fwpm.Condition) {
		f := fwpm.Filter{ID: fwpm.FilterID(len(p.Filters) + 1), Name: name, Layer: l, Action: action, Conditions: conditions}
		if action.CallsOut() {
			f.Callout = "to the proxy"
		}
		p.Filters = append(p.Filters, f)
	}
	port := func(n uint16) fwpm.Condition {
		return fwpm.Condition{Field: fwpm.ConditionIPRemotePort, Match: fwp.MatchEqual, Value: fwp.U16(n)}
	}
	to := func(prefix string) fwpm.Condition {
		return fwpm.Condition{Field: fwpm.ConditionIPRemoteAddress, Match: fwp.MatchEqual, Value: fwp.Mask(netip.MustParsePrefix(prefix))}
	}
	me := fwpm.Condition{Field: fwpm.ConditionALEAppID, Match: fwp.MatchEqual, Value: fwp.Blob(w.exe)}
	filter("away", fwpm.LayerALEConnectRedirectV4, fwp.ActionCalloutTerminating, to("203.0.113.0/24"))
	filter("away", fwpm.LayerALEConnectRedirectV6, fwp.ActionCalloutTerminating, to("2001:db8::/64"))
	for i, l := range []fwpm.LayerID{fwpm.LayerALEAuthConnectV4, fwpm.LayerALEAuthConnectV6} {
		filter("no mail", l, fwp.ActionBlock, port(blockedPort))
		filter("not this program", l, fwp.ActionBlock, me, port(appPort), to([]string{"198.51.100.0/24", "2001:db8:ffff::/48"}[i]))
		for _, n := range networks {
			if strings.HasSuffix(n, "46"[i:i+1]) {
				filter("forbidden", l, fwp.ActionBlock, port(w.forbidden[n].Port()), fwpm.Condition{Field: fwpm.ConditionIPProtocol, Match: fwp.MatchEqual, Value: fwp.U8(protocol(n))})
			}
		}
	}
	return p
}

func protocol(network string) uint8 {
	if strings.HasPrefix(network, "udp") {
		return fwps.ProtocolUDP
	}
	return fwps.ProtocolTCP
}

// A site is an engine with the policy, and what it was asked.
type site struct {
	w      *world
	ale    *ale.Enforcer
	policy *fwpm.Policy

	mu       sync.Mutex
	question []string
	denied   []string
}

func (w *world) newSite(t *testing.T) *site {
	s := &site{w: w, policy: w.policy()}
	engine := host.New(host.Options{OnDecision: s.onDecision})
	_, _, err := engine.RegisterCallout("to the proxy", fwps.CalloutFunc(s.redirect))
	require.NoError(t, err)
	require.NoError(t, engine.Update(func(p *fwpm.Policy) error { *p = *s.policy.Clone(); return nil }))
	s.ale = ale.New(ale.Options{Classifier: engine, Store: memstore.New(0)})
	return s
}

func (s *site) redirect(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
	network := map[uint8]string{fwps.ProtocolTCP: "tcp", fwps.ProtocolUDP: "udp"}[c.In.Protocol] + "4"
	if c.In.Remote.Addr().Is6() {
		network = network[:3] + "6"
	}
	v.Action, v.Redirect, v.To, v.TargetPID = fwp.ActionPermit, true, s.w.proxy[network], uint32(os.Getpid())
	return nil
}

// onDecision notes what is asked about connections that go out.
func (s *site) onDecision(in *fwps.Incoming, d *fwps.Decision) {
	l := in.Layer.ForFamily(false)
	if l != fwpm.LayerALEConnectRedirectV4 && l != fwpm.LayerALEAuthConnectV4 {
		return
	}
	by := ""
	if step := d.Decider(); step != nil {
		by = step.Name
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.question = append(s.question, fmt.Sprintf("%s protocol %d to %s: %v %s", in.Layer, in.Protocol, in.Remote, d.Action, by))
}

func (s *site) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.question
}

func (s *site) denials() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.denied
}

func (s *site) deny(to netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.denied = append(s.denied, to.String())
}

// site is s as a backend gets it.
func (s *site) site(t *testing.T) Site {
	return Site{ALE: s.ale, Policy: s.policy, Logf: t.Logf, OnBlocked: func(d enforce.Denial) { s.deny(d.Remote) }}
}

// serve makes the proxies answer with what the ALE of a site knows about whom
// they hear.
func (w *world) serve(t *testing.T, s *site) {
	for _, n := range networks {
		in := fwps.Incoming{Protocol: protocol(n), Local: w.proxy[n], ProcessID: uint32(os.Getpid())}
		socket := s.ale.NewSocket(in)
		t.Cleanup(socket.Close)
		answer(t, w.listeners[n], w.packets[n], func(local, remote net.Addr) string {
			var f *ale.Flow
			var err error
			if in.Protocol == fwps.ProtocolUDP {
				_, f, _, err = socket.ReceiveFrom(context.Background(), remote.(*net.UDPAddr).AddrPort())
			} else if f, err = socket.Accept(context.Background(), local.(*net.TCPAddr).AddrPort(), remote.(*net.TCPAddr).AddrPort()); err == nil {
				defer f.Close()
			}
			if err != nil {
				return err.Error()
			}
			return redirected + f.Original.String()
		})
	}
}
