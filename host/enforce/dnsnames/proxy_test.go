package dnsnames

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// resolver answers every question with one address, on both protocols; silent
// ones not at all.
func resolver(t *testing.T, silent bool) netip.AddrPort {
	udp, tcp, err := listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	require.NoError(t, err)
	serve(t, udp, tcp, func(w dns.ResponseWriter, q *dns.Msg) {
		if silent {
			return
		}
		m := new(dns.Msg).SetReply(q)
		rr, err := dns.NewRR(q.Question[0].Name + " 60 IN A 198.51.100.7")
		require.NoError(t, err)
		m.Answer = []dns.RR{rr}
		_ = w.WriteMsg(m)
	})
	return udp.LocalAddr().(*net.UDPAddr).AddrPort()
}

// serve answers with a function until the test ends.
func serve(t *testing.T, udp net.PacketConn, tcp net.Listener, answer dns.HandlerFunc) {
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait)
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: answer, UDPSize: dns.MaxMsgSize}, {Listener: tcp, Handler: answer}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		serving.Go(func() { _ = s.ActivateAndServe() })
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
}

// A site redirects what goes to resolvers to the proxy, unless it comes from there.
type site struct {
	ale   *ale.Enforcer
	proxy *Proxy
	names *Names
	mu    sync.Mutex
	asked []string // by the proxy: where it connects, in which redirect state
}

func newSite(t *testing.T, opts Options, block bool) *site {
	s := &site{names: &Names{}}
	e := host.New(host.Options{})
	var handle redirect.Handle
	handle, _, err := e.RegisterCallout("c", fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		state, _ := c.In.Records.State(handle)
		if c.In.ProcessID == 1 {
			s.mu.Lock()
			s.asked = append(s.asked, c.In.Remote.String()+" "+state.String())
			s.mu.Unlock()
			return nil
		}
		v.Redirect, v.To, v.TargetPID = true, s.proxy.Addr(), uint32(os.Getpid())
		return nil
	}))
	require.NoError(t, err)
	require.NoError(t, e.Update(func(p *fwpm.Policy) error {
		p.Callouts = []fwpm.Callout{{ID: "c", Name: "c"}}
		p.Filters = []fwpm.Filter{{ID: 1, Name: "to the proxy", Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutTerminating, Callout: "c"}}
		if block {
			p.Filters = append(p.Filters, fwpm.Filter{ID: 2, Name: "no such resolver", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionBlock,
				Conditions: []fwpm.Condition{{Field: fwpm.ConditionALEAppID, Match: fwp.MatchEqual, Value: fwp.Blob("/proxy")}}})
		}
		return nil
	}))
	s.ale = ale.New(ale.Options{Classifier: e, Store: memstore.New(0), PeerNames: s.names.Of})
	opts.ALE, opts.Names, opts.ProcessID, opts.AppID, opts.Listen = s.ale, s.names, 1, "/proxy", netip.MustParseAddrPort("127.0.0.1:0")
	s.proxy, err = Start(t.Context(), opts)
	require.NoError(t, err)
	t.Cleanup(s.proxy.Close)
	return s
}

// ask asks as a program does that means to ask a resolver.
func (s *site) ask(t *testing.T, network string, resolver netip.AddrPort, name string) *dns.Msg {
	q := new(dns.Msg).SetQuestion(name, dns.TypeA)
	in := fwps.Incoming{Protocol: fwps.ProtocolUDP, ProcessID: 7, AppID: "/bin/app"}
	if network == "tcp" {
		in.Protocol = fwps.ProtocolTCP
	}
	var c net.Conn
	connect := func(to netip.AddrPort) netip.AddrPort {
		var err error
		c, err = net.Dial(network, to.String())
		require.NoError(t, err)
		local, err := netip.ParseAddrPort(c.LocalAddr().String())
		require.NoError(t, err)
		return local
	}
	if network == "udp" {
		in.Local = connect(s.proxy.Addr())
	}
	socket := s.ale.NewSocket(in)
	defer socket.Close()
	if network == "udp" {
		to, _, _, err := socket.SendTo(t.Context(), resolver)
		require.NoError(t, err)
		require.Equal(t, s.proxy.Addr(), to)
	} else {
		flow, err := socket.Connect(t.Context(), resolver, func(_ context.Context, to ale.Target) (netip.AddrPort, error) { return connect(to.Remote), nil })
		require.NoError(t, err)
		defer flow.Close()
	}
	defer c.Close()
	r, _, err := (&dns.Client{Timeout: time.Minute}).ExchangeWithConn(q, &dns.Conn{Conn: c})
	require.NoError(t, err)
	return r
}

// askItself asks the proxy as one that nobody was redirected to.
func (s *site) askItself(name string) (*dns.Msg, error) {
	r, _, err := (&dns.Client{Timeout: time.Minute, UDPSize: dns.MaxMsgSize}).Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), s.proxy.Addr().String())
	return r, err
}

// A query reaches the resolver that the program meant, as the proxy's own
// connection, and the answer the program.
func TestProxyCarries(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		to := resolver(t, false)
		s := newSite(t, Options{Trusted: []netip.AddrPort{to}, Logf: t.Logf}, false)
		r := s.ask(t, network, to, "App.Example.")
		require.Equal(t, "App.Example.\t60\tIN\tA\t198.51.100.7", r.Answer[0].String())
		require.Equal(t, []string{to.String() + " redirected-by-self"}, s.asked, network)
		require.Equal(t, "app.example", s.names.Name(here, web))
		s.proxy.Close()
		require.Zero(t, s.ale.LiveHops(), "no record is left")
	}
}

// The answer of a resolver that the program chose is carried and not believed.
func TestProxyDoesNotTrust(t *testing.T) {
	to := resolver(t, false)
	otherPort := netip.AddrPortFrom(to.Addr(), 53) // as a program has one on this host, where the system's resolver is, too
	s := newSite(t, Options{Trusted: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53"), otherPort}, Logf: t.Logf}, false)
	require.Len(t, s.ask(t, "udp", to, "bank.example.").Answer, 1)
	require.Empty(t, s.names.Name(here, web))
}

// The resolver of the policy is asked in the place of all others.
func TestPolicyResolver(t *testing.T) {
	to := resolver(t, false)
	s := newSite(t, Options{Resolver: to, Logf: t.Logf}, false)
	require.Len(t, s.ask(t, "udp", netip.MustParseAddrPort("192.0.2.53:53"), "app.example.").Answer, 1)
	require.Equal(t, "app.example", s.names.Name(here, web))
	r, err := s.askItself("other.example.")
	require.NoError(t, err)
	require.Len(t, r.Answer, 1, "also for who asks the proxy itself")
	for range maxWaiting + 1 {
		r, err = s.askItself("other.example.")
		require.NoError(t, err)
		require.Len(t, r.Answer, 1, "and for as many as ask one after the other")
	}
}

func TestProxyRefuses(t *testing.T) {
	var mu sync.Mutex
	var logged []string
	logf := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		logged = append(logged, format)
		for _, a := range args {
			if err, ok := a.(error); ok {
				logged = append(logged, err.Error())
			}
		}
	}
	s := newSite(t, Options{Logf: logf}, true)
	require.Equal(t, dns.RcodeRefused, s.ask(t, "udp", netip.MustParseAddrPort("192.0.2.53:53"), "a.example.").Rcode, "the policy blocks the proxy")
	r, err := s.askItself("a.example.")
	require.NoError(t, err)
	require.Equal(t, dns.RcodeRefused, r.Rcode, "nobody knows whom it was for")
	s.proxy.Close()
	text := strings.Join(logged, "\n")
	require.Contains(t, text, "no such resolver")
	require.Contains(t, text, errNowhere.Error())
}

// Close does not wait for a resolver that does not answer.
func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	s := newSite(t, Options{Resolver: resolver(t, true), Logf: t.Logf}, false)
	c, err := net.Dial("udp", s.proxy.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	b, err := new(dns.Msg).SetQuestion("a.example.", dns.TypeA).Pack()
	require.NoError(t, err)
	began := time.Now()
	_, err = c.Write(b)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(s.proxy.slots) == 1 }, time.Minute, time.Millisecond)
	s.proxy.Close()
	require.Less(t, time.Since(began), patience)
}

// Where nobody is, or a resolver says what cannot be read, the program is told at once.
func TestResolverThatIsNone(t *testing.T) {
	udp, tcp, err := listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	require.NoError(t, err)
	nobody := udp.LocalAddr().(*net.UDPAddr).AddrPort()
	udp.Close()
	tcp.Close()
	garbles := raw(t, func(q *dns.Msg, send func([]byte)) { send(reply(q, nil, "app.example. 60 IN A 198.51.100.7")[:30]) })
	for _, c := range []struct {
		network string
		to      netip.AddrPort
	}{{"udp", nobody}, {"tcp", nobody}, {"udp", garbles}} {
		s := newSite(t, Options{Trusted: []netip.AddrPort{c.to}, Logf: t.Logf}, false)
		began := time.Now()
		require.Equal(t, dns.RcodeServerFailure, s.ask(t, c.network, c.to, "app.example.").Rcode, c)
		require.Less(t, time.Since(began), patience)
		require.Empty(t, s.names.Name(here, web))
		s.proxy.Close()
	}
}

// The proxy's connection to a resolver ends with the answer.
func TestConnectionToTheResolverEnds(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			ended <- err
			return
		}
		defer c.Close()
		resolver := dns.Conn{Conn: c}
		q, err := resolver.ReadMsg()
		if err == nil {
			err = resolver.WriteMsg(new(dns.Msg).SetReply(q))
		}
		if err == nil {
			err = c.SetReadDeadline(time.Now().Add(time.Minute))
		}
		if err == nil {
			_, err = c.Read(make([]byte, 1))
		}
		ended <- err
	}()
	s := newSite(t, Options{Logf: t.Logf}, false)
	s.ask(t, "tcp", l.Addr().(*net.TCPAddr).AddrPort(), "app.example.")
	require.Equal(t, io.EOF, <-ended)
	l.Close()
}

// A port that others have for one protocol is not had for the other one.
func TestPortOfOthers(t *testing.T) {
	others, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer others.Close()
	at := others.LocalAddr().(*net.UDPAddr).AddrPort()
	_, _, err = listen(t.Context(), at)
	require.ErrorContains(t, err, "address already in use")
	l, err := net.Listen("tcp", at.String())
	require.NoError(t, err, "it is free again")
	_, _, err = listen(t.Context(), at)
	require.ErrorContains(t, err, "address already in use")
	l.Close()
}

func TestSystemResolvers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	require.NoError(t, os.WriteFile(file, []byte("nameserver 192.0.2.53\nnameserver 2001:db8::53\nnameserver fe80::1%lo\nsearch example\n"), 0o644))
	require.Equal(t, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("[2001:db8::53]:53"), netip.MustParseAddrPort("[fe80::1%lo]:53")}, SystemResolvers(file))
	require.Empty(t, SystemResolvers(file+".none"))
}

// A server that cannot start is an error at once, and nothing of the proxy is left.
func TestAServerThatDoesNotStartIsToldAndNotWaitedFor(t *testing.T) {
	for _, failing := range []string{"udp", "tcp"} {
		udp, tcp, err := listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
		require.NoError(t, err)
		at := udp.LocalAddr().String()
		p := newProxy(t.Context(), Options{ALE: ale.New(ale.Options{Classifier: host.New(host.Options{}), Store: memstore.New(0)}), Names: new(Names), Logf: t.Logf}, udp, tcp)
		if failing == "udp" {
			require.NoError(t, udp.Close())
		} else {
			p.servers[1].Listener = nil
		}
		require.Error(t, p.start())
		c, err := net.Dial("tcp", at)
		require.ErrorIs(t, err, syscall.ECONNREFUSED, "%v", c)
	}
}
