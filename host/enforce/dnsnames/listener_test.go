package dnsnames

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/loglimit"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// Who connects is answered also while a callout takes its time with others; of whom there
// are so many, and no more.
func TestSlowDecisionsHoldNobody(t *testing.T) {
	var slow, deciding atomic.Int64
	release, begun := make(chan struct{}), make(chan struct{}, 2*maxDeciding)
	slow.Store(2 * maxDeciding)
	e := host.New(host.Options{})
	_, _, err := e.RegisterCallout("c", fwps.CalloutFunc(func(ctx context.Context, _ *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		if slow.Add(-1) < 0 {
			return nil
		}
		deciding.Add(1)
		defer deciding.Add(-1)
		begun <- struct{}{}
		<-release
		return nil
	}))
	require.NoError(t, err)
	require.NoError(t, e.Update(func(p *fwpm.Policy) error {
		p.Callouts = []fwpm.Callout{{ID: "c", Name: "c"}}
		p.Filters = []fwpm.Filter{{ID: 1, Name: "slow", Layer: fwpm.LayerALEAuthRecvAcceptV4, Action: fwp.ActionCalloutTerminating, Callout: "c",
			Conditions: []fwpm.Condition{{Field: fwpm.ConditionIPProtocol, Match: fwp.MatchEqual, Value: fwp.U8(fwps.ProtocolTCP)}}}}
		return nil
	}))
	names := &Names{}
	p, err := Start(t.Context(), Options{ALE: ale.New(ale.Options{Classifier: e, Store: memstore.New(0), PeerNames: names.Of}), Names: names,
		Listen: netip.MustParseAddrPort("127.0.0.1:0"), Resolver: resolver(t, false), ProcessID: 1, AppID: "/proxy", Logf: t.Logf})
	require.NoError(t, err)
	defer p.Close()
	over := sync.OnceFunc(func() { close(release) })
	defer over()
	connect := func() {
		c, err := net.Dial("tcp", p.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
	}
	ask := func() {
		r, _, err := (&dns.Client{Net: "tcp", Timeout: time.Minute}).Exchange(new(dns.Msg).SetQuestion("app.example.", dns.TypeA), p.Addr().String())
		require.NoError(t, err)
		require.Len(t, r.Answer, 1)
	}
	for range maxDeciding - 1 {
		connect()
		<-begun
	}
	slow.Store(0)
	ask()

	slow.Store(maxDeciding)
	for range maxDeciding {
		connect()
	}
	<-begun
	require.Never(t, func() bool { return deciding.Load() > maxDeciding }, 200*time.Millisecond, time.Millisecond)
	over()
	ask()
}

// What the layers refuse is reset, and not left waiting; they know that it comes to the proxy.
func TestWhatTheLayersRefuseIsReset(t *testing.T) {
	e := host.New(host.Options{})
	require.NoError(t, e.Update(func(p *fwpm.Policy) error {
		p.Filters = []fwpm.Filter{{ID: 1, Name: "nobody", Layer: fwpm.LayerALEAuthRecvAcceptV4, Action: fwp.ActionBlock, Conditions: []fwpm.Condition{
			{Field: fwpm.ConditionALEAppID, Match: fwp.MatchEqual, Value: fwp.Blob("/proxy")}}}}
		return nil
	}))
	p, err := Start(t.Context(), Options{ALE: ale.New(ale.Options{Classifier: e, Store: memstore.New(0)}), Names: &Names{},
		Listen: netip.MustParseAddrPort("127.0.0.1:0"), Resolver: resolver(t, false), ProcessID: 1, AppID: "/proxy", Logf: t.Logf})
	require.NoError(t, err)
	defer p.Close()
	c, err := net.Dial("tcp", p.Addr().String())
	if err == nil { // Else it was reset at once.
		defer c.Close()
		require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
		_, err = c.Read(make([]byte, 1))
	}
	var reset *net.OpError
	require.ErrorAs(t, err, &reset, "no orderly end")
	require.False(t, reset.Timeout())
	r, _, err := (&dns.Client{Timeout: time.Minute}).Exchange(new(dns.Msg).SetQuestion("app.example.", dns.TypeA), p.Addr().String())
	require.NoError(t, err)
	require.Equal(t, dns.RcodeRefused, r.Rcode)
}

// newListener is one beside that of the site's proxy, for which nobody accepts.
func newListener(t *testing.T, s *site) (l *listener, end context.CancelFunc) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	socket := s.ale.NewSocket(fwps.Incoming{ProcessID: 1, AppID: "/proxy", Local: tcp.Addr().(*net.TCPAddr).AddrPort(), Protocol: fwps.ProtocolTCP})
	ctx, end := context.WithCancel(t.Context())
	l = &listener{TCPListener: tcp.(*net.TCPListener), socket: socket, ctx: ctx, log: loglimit.New(t.Logf),
		deciding: make(chan struct{}, maxDeciding), decided: make(chan net.Conn)}
	var wg sync.WaitGroup
	wg.Go(l.serve)
	t.Cleanup(func() { end(); l.Close(); wg.Wait(); socket.Close() })
	return l, end
}

// What is decided when the proxy ends is waited for, and closed: nobody takes it any more.
func TestWhatIsDecidedAtTheEndIsClosed(t *testing.T) {
	s := newSite(t, Options{Resolver: resolver(t, false), Logf: t.Logf}, false)
	l, end := newListener(t, s)
	c, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	from := c.LocalAddr().(*net.TCPAddr).AddrPort()
	has := func() bool { _, has := l.flows.Load(from); return has }
	require.Eventually(t, has, time.Minute, time.Millisecond)
	require.NoError(t, l.Close())
	require.Never(t, func() bool { return !has() }, 50*time.Millisecond, time.Millisecond)
	end()
	_, err = l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	require.False(t, has())
	require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
	_, err = c.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}
