package host_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// events makes an engine whose net events take returns.
func events(t *testing.T, o host.Options) (e *host.Engine, s *host.Session, take func() []fwpm.NetEvent) {
	o.Now = func() time.Time { return noon }
	e = host.New(o)
	s = open(t, e, host.SessionOptions{})
	var got []fwpm.NetEvent
	_, err := s.NetEventSubscribe(func(ev fwpm.NetEvent) { got = append(got, ev) })
	require.NoError(t, err)
	return e, s, func() []fwpm.NetEvent { out := got; got = nil; return out }
}

func classify(e *host.Engine, in fwps.Incoming) *fwps.Decision {
	d := new(fwps.Decision)
	e.Classify(context.Background(), &in, d)
	return d
}

func TestNetEvents(t *testing.T) {
	t.Run("EVT-02 a block is told with what blocked it", func(t *testing.T) {
		e, s, take := events(t, host.Options{})
		id := add(t, s, filter("no", block))
		in := incoming(layer)
		in.Flags, in.ReauthorizeReason = fwp.FlagIsLoopback, fwp.ReasonPolicyChange
		classify(e, in)
		require.Equal(t, []fwpm.NetEvent{{Type: fwpm.NetEventClassifyDrop, Time: noon, AuditID: fwpm.AuditConnectionBlocked, Layer: layer,
			Filter: id, Rule: "ARB-01", Protocol: 6, Loopback: true, Local: in.Local, Remote: in.Remote, AppID: in.AppID, ProcessID: 42, UserID: 1000, UserKnown: true,
			ReauthorizeReason: fwp.ReasonPolicyChange}}, take())
	})
	t.Run("EVT-01 a permit only if asked for", func(t *testing.T) {
		e, s, take := events(t, host.Options{})
		classify(e, incoming(layer))
		require.Empty(t, take())
		require.NoError(t, s.SetOption(fwpm.EngineNetEventMatchAnyKeywords, uint32(fwpm.NetEventKeywordClassifyAllow)))
		classify(e, incoming(layer))
		got := take()
		require.Len(t, got, 1)
		require.Equal(t, fwpm.NetEventClassifyAllow, got[0].Type)
		require.Zero(t, got[0].Filter, "EVT-02 no filter decided")
		v, err := s.GetOption(fwpm.EngineNetEventMatchAnyKeywords)
		require.NoError(t, err)
		require.EqualValues(t, fwpm.NetEventKeywordClassifyAllow, v)
	})
	t.Run("EVT-01 blocks of multicast and broadcast only if asked for", func(t *testing.T) {
		accept := fwpm.LayerALEAuthRecvAcceptV4
		for to, keyword := range map[string]fwpm.NetEventKeyword{
			"224.0.0.251:5353": fwpm.NetEventKeywordInboundMcast, "255.255.255.255:67": fwpm.NetEventKeywordInboundBcast,
		} {
			e, s, take := events(t, host.Options{})
			f := filter("no", block)
			f.Layer = accept
			add(t, s, f)
			in := incoming(accept)
			in.Inbound, in.Local = true, netip.MustParseAddrPort(to)
			classify(e, in)
			require.Empty(t, take())
			require.NoError(t, s.SetOption(fwpm.EngineNetEventMatchAnyKeywords, uint32(keyword)))
			classify(e, in)
			got := take()
			require.Len(t, got, 1)
			require.True(t, got[0].Inbound)
		}
	})
	t.Run("EVT-01 collecting can be switched off", func(t *testing.T) {
		e, s, take := events(t, host.Options{})
		add(t, s, filter("no", block))
		v, err := s.GetOption(fwpm.EngineCollectNetEvents)
		require.NoError(t, err)
		require.EqualValues(t, 1, v, "it is on at first")
		require.NoError(t, s.SetOption(fwpm.EngineCollectNetEvents, 0))
		classify(e, incoming(layer))
		require.Empty(t, take())
		_, err = s.NetEventSubscribe(func(fwpm.NetEvent) {})
		require.ErrorIs(t, err, fwp.ErrNetEventsDisabled)
		require.NoError(t, s.SetOption(fwpm.EngineCollectNetEvents, 1))
		classify(e, incoming(layer))
		require.Len(t, take(), 1)
	})
	t.Run("EVT-04 SC-115 an absorbed block is silent", func(t *testing.T) {
		e, s, take := events(t, host.Options{})
		declare(t, s, "c")
		register(t, e, "c", fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error {
			v.Action, v.Absorb = block, true
			return nil
		}))
		add(t, s, calling("c"))
		require.Equal(t, block, classify(e, incoming(layer)).Action)
		require.Empty(t, take())
		require.EqualValues(t, 1, e.LayerStatistics(layer).ClassifyBlockCount, "but counted")
	})
	t.Run("unsubscribing and closing end it", func(t *testing.T) {
		e, s, _ := events(t, host.Options{})
		other := open(t, e, host.SessionOptions{})
		n := 0
		unsubscribe, err := s.NetEventSubscribe(func(fwpm.NetEvent) { n++ })
		require.NoError(t, err)
		_, err = other.NetEventSubscribe(func(fwpm.NetEvent) { n += 10 })
		require.NoError(t, err)
		add(t, s, filter("no", block))
		classify(e, incoming(layer))
		require.Equal(t, 11, n)
		unsubscribe()
		classify(e, incoming(layer))
		require.Equal(t, 21, n)
		other.Close()
		classify(e, incoming(layer))
		require.Equal(t, 21, n)
		_, err = s.NetEventSubscribe(nil)
		require.ErrorIs(t, err, fwp.ErrInvalidParameter)
	})
}

// EVT-03 and AMB-45, layer by layer.
func TestAudits(t *testing.T) {
	want := map[string][2]fwpm.AuditID{
		"ALE_RESOURCE_ASSIGNMENT": {5158, 5159}, "ALE_AUTH_LISTEN": {5154, 5155}, "ALE_AUTH_CONNECT": {5156, 5157},
		"ALE_AUTH_RECV_ACCEPT": {5156, 5157}, "ALE_FLOW_ESTABLISHED": {0, 5152},
	}
	for _, l := range fwpm.Layers() {
		t.Run(l.String(), func(t *testing.T) {
			ids, told := want[l.String()[:len(l.String())-len("_V4")]]
			e, s, take := events(t, host.Options{})
			require.NoError(t, s.SetOption(fwpm.EngineNetEventMatchAnyKeywords, uint32(fwpm.NetEventKeywordClassifyAllow)))
			classify(e, incoming(l))
			f := filter("no", block)
			f.Layer = l
			add(t, s, f)
			classify(e, incoming(l))
			got := take()
			if !told { // AMB-45: no DISCARD twin
				require.Empty(t, got)
				return
			}
			require.Len(t, got, 2)
			require.Equal(t, ids, [2]fwpm.AuditID{got[0].AuditID, got[1].AuditID})
		})
	}
	t.Run("SC-102 ARB-06 a veto is 5153 and counted", func(t *testing.T) {
		e, s, take := events(t, host.Options{})
		declare(t, s, "yes", "no")
		register(t, e, "yes", fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error {
			v.Action, v.ClearActionRight = permit, true
			return nil
		}))
		register(t, e, "no", answering(block))
		for i, id := range []fwpm.CalloutID{"no", "yes"} {
			sub, err := s.SublayerAdd(fwpm.Sublayer{Name: "n", Weight: uint16(i)})
			require.NoError(t, err)
			f := calling(id)
			f.Sublayer = sub
			add(t, s, f)
		}
		require.True(t, classify(e, incoming(layer)).Vetoed)
		got := take()
		require.Len(t, got, 1)
		require.Equal(t, fwpm.AuditPacketVetoed, got[0].AuditID)
		require.EqualValues(t, "no", got[0].Callout)
		require.Equal(t, fwpm.LayerStatistics{Layer: layer, ClassifyBlockCount: 1, ClassifyVetoCount: 1}, e.LayerStatistics(layer))
	})
	t.Run("AMB-42 a callout that fails at a redirect layer ends the operation, and is told", func(t *testing.T) {
		e, s, take := events(t, host.Options{})
		declare(t, s, "c")
		register(t, e, "c", fwps.CalloutFunc(func(context.Context, *fwps.Call, *fwps.Verdict) error { return errors.New("out of fuel") }))
		f := calling("c")
		f.Layer = fwpm.LayerALEConnectRedirectV4
		add(t, s, f)
		classify(e, incoming(f.Layer))
		got := take()
		require.Len(t, got, 1)
		require.Equal(t, "out of fuel", got[0].Why)
		require.Equal(t, fwpm.AuditPacketDropped, got[0].AuditID)
	})
}

func TestLayerStatistics(t *testing.T) {
	e := host.New(host.Options{})
	s := open(t, e, host.SessionOptions{})
	for _, l := range fwpm.Layers() {
		classify(e, incoming(l))
		classify(e, incoming(l))
		require.EqualValues(t, 2, e.LayerStatistics(l).ClassifyPermitCount)
	}
	add(t, s, filter("no", block))
	classify(e, incoming(layer))
	require.Equal(t, fwpm.LayerStatistics{Layer: layer, ClassifyPermitCount: 2, ClassifyBlockCount: 1}, e.LayerStatistics(layer))
	require.EqualValues(t, 3, e.LayerStatistics(layer).ClassifyCount())
	in := incoming(layer)
	in.Layer = 3
	classify(e, in)
	require.Zero(t, e.LayerStatistics(3).ClassifyCount())
	require.Zero(t, e.LayerStatistics(1000).ClassifyCount())
}

// AMB-45: a redirect through the real layers ends as a net event.
func TestRedirectEvents(t *testing.T) {
	e, s, take := events(t, host.Options{})
	proxy := netip.MustParseAddrPort("127.0.0.1:8080")
	var pid uint32
	declare(t, s, "redirector")
	register(t, e, "redirector", fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error {
		v.Action, v.Redirect, v.To, v.TargetPID = permit, true, proxy, pid
		return nil
	}))
	f := calling("redirector")
	f.Layer = fwpm.LayerALEConnectRedirectV4
	id := add(t, s, f)
	enforcer := ale.New(ale.Options{Classifier: e, Store: memstore.New(0),
		OnRedirect: func(ev ale.RedirectEvent) { e.RedirectEvent(fwpm.NetEventRedirect(ev)) }})
	origin := incoming(layer).Remote
	var nobody error
	connect := func() {
		in := incoming(layer)
		in.Local = netip.MustParseAddrPort("0.0.0.0:0")
		flow, err := enforcer.Connect(t.Context(), endpoint{in, nobody})
		require.ErrorIs(t, err, nobody)
		if err == nil {
			flow.Close()
		}
	}
	connect()
	pid = 7
	connect()
	nobody = errors.New("connection refused")
	connect()
	event := func(typ fwpm.NetEventType) fwpm.NetEvent {
		return fwpm.NetEvent{Type: typ, Time: noon, Layer: f.Layer, Filter: id, Callout: "redirector", AppID: "/usr/bin/curl", ProcessID: 42, Original: origin, Target: proxy}
	}
	refused, applied, failed := event(fwpm.NetEventRedirectRefused), event(fwpm.NetEventRedirectApplied), event(fwpm.NetEventRedirectFailed)
	refused.Rule, refused.Why = "CR-01", "a redirect to this host needs localRedirectTargetPID"
	failed.Err = nobody
	require.Equal(t, []fwpm.NetEvent{refused, applied, applied, failed}, take())
	require.NoError(t, s.SetOption(fwpm.EngineCollectNetEvents, 0))
	connect()
	require.Empty(t, take())
}

type endpoint struct {
	in  fwps.Incoming
	err error // what connecting comes to
}

func (d endpoint) Incoming() fwps.Incoming { return d.in }

func (d endpoint) Connect(context.Context, netip.AddrPort) (netip.AddrPort, error) {
	return netip.MustParseAddrPort("127.0.0.1:40001"), d.err
}
