package ale_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

var (
	origin = netip.MustParseAddrPort("198.51.100.7:80")
	proxy  = netip.MustParseAddrPort("127.0.0.1:8080")
	client = netip.MustParseAddrPort("127.0.0.1:40001")
)

// A policy is a classifier as a table: what to do at a layer.
type policy struct {
	mu         sync.Mutex
	seen       []fwps.Incoming
	generation uint64
	testsLocal bool
	at         map[fwpm.LayerID]func(in *fwps.Incoming, d *fwps.Decision)
}

func (p *policy) Classify(_ context.Context, in *fwps.Incoming, d *fwps.Decision) {
	d.Reset(in)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = append(p.seen, *in)
	if f := p.at[in.Layer]; f != nil {
		f(in, d)
	}
}

func (p *policy) Generation(fwpm.LayerID) uint64 { return p.generation }

func (p *policy) TestsLocal(fwpm.LayerID) bool { return p.testsLocal }

func (p *policy) ReauthorizeReason(fwpm.LayerID, uint64) fwp.ReauthorizeReason {
	return fwp.ReasonPolicyChange
}

// layers are what was asked, without the implicit bind.
func (p *policy) layers() string {
	var s []string
	for _, in := range p.seen {
		if in.Flags&fwp.FlagIsImplicitBind != 0 {
			continue
		}
		s = append(s, in.Layer.String()+" "+in.Remote.String())
	}
	return strings.Join(s, "\n")
}

func redirectTo(to netip.AddrPort, pid uint32, h redirect.Handle) func(*fwps.Incoming, *fwps.Decision) {
	return func(in *fwps.Incoming, d *fwps.Decision) {
		if st, _ := in.Records.State(h); st == redirect.RedirectedBySelf {
			return
		}
		r := d.PushConnect()
		r.Remote, r.LocalRedirectTargetPID, r.LocalRedirectHandle, r.ModifierFilterID = to, pid, h, 31
		r.Record, r.LocalRedirectContext = append(r.Record, "rec"...), append(r.LocalRedirectContext, "ctx"...)
	}
}

type endpoint struct {
	in      fwps.Incoming
	to      netip.AddrPort
	local   netip.AddrPort // if valid, what the system chooses instead of client
	connect func(to netip.AddrPort) error
}

func (e *endpoint) Incoming() fwps.Incoming { return e.in }

func (e *endpoint) Connect(_ context.Context, to netip.AddrPort) (netip.AddrPort, error) {
	e.to = to
	local := client
	if e.local.IsValid() {
		local = e.local
	}
	if e.connect != nil {
		return local, e.connect(to)
	}
	return local, nil
}

func app() *endpoint {
	return &endpoint{in: fwps.Incoming{Protocol: fwps.ProtocolTCP, Local: netip.MustParseAddrPort("0.0.0.0:0"), Remote: origin, ProcessID: 42, AppID: "/bin/app"}}
}

func enforcer(p *policy) (*ale.Enforcer, *memstore.Store, *[]ale.RedirectEvent) {
	store, events := memstore.New(0), new([]ale.RedirectEvent)
	return ale.New(ale.Options{Classifier: p, Store: store, OnRedirect: func(e ale.RedirectEvent) { *events = append(*events, e) }}), store, events
}

func accepted() fwps.Incoming {
	return fwps.Incoming{Protocol: fwps.ProtocolTCP, Local: proxy, Remote: client}
}

// SC-30, SC-60, SC-91: the whole loop, and nothing is left of it at the end.
func TestRedirectedConnection(t *testing.T) {
	p := &policy{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){fwpm.LayerALEConnectRedirectV4: redirectTo(proxy, 7, 1)}}
	e, store, _ := enforcer(p)
	a := app()
	f, err := e.Connect(t.Context(), a)
	require.NoError(t, err)
	require.Equal(t, proxy, a.to)
	require.True(t, f.Redirected)
	require.Equal(t, "ALE_CONNECT_REDIRECT_V4 198.51.100.7:80\nALE_AUTH_CONNECT_V4 127.0.0.1:8080\nALE_FLOW_ESTABLISHED_V4 127.0.0.1:8080", p.layers())
	auth := p.seen[3]
	require.NotZero(t, auth.Flags&fwp.FlagIsConnectionRedirected)
	require.Equal(t, origin, auth.OriginalDestination)
	require.EqualValues(t, 7, auth.LocalRedirectTargetPID)

	got, err := e.Accept(t.Context(), accepted())
	require.NoError(t, err)
	require.Equal(t, origin, got.Original)
	require.True(t, got.Redirected)
	require.NotZero(t, got.ID())
	require.NotEqual(t, f.ID(), got.ID(), "each side has a flow of its own")
	require.Equal(t, "ctx", string(got.Records.Last().Context))
	require.Equal(t, "rec", string(got.Records.Last().Record))

	sealed, err := e.Seal(got.Records)
	require.NoError(t, err)
	rs, err := e.Open(sealed)
	require.NoError(t, err)
	px := app()
	px.in.AppID, px.in.Records = "/bin/proxy", rs
	p.seen = nil
	out, err := e.Connect(t.Context(), px)
	require.NoError(t, err)
	require.Equal(t, origin, px.to, "redirected-by-self goes to the origin")
	require.NotZero(t, p.seen[2].Flags&fwp.FlagIsProxyConnection, "SC-45")
	require.Equal(t, "/bin/app", p.seen[2].OriginalAppID, "SC-45")

	require.Equal(t, 1, store.Len())
	f.Close()
	out.Close()
	e.Release(rs)
	require.Equal(t, 1, store.Len(), "the accepted socket still holds the hop")
	got.Close()
	got.Close()
	require.Zero(t, store.Len(), "AMB-19")
}

// The adversary: a proxy that accepts while connect has not returned yet.
func TestRecordIsThereWhenTheProxyAcceptsFirst(t *testing.T) {
	p := &policy{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){fwpm.LayerALEConnectRedirectV4: redirectTo(proxy, 7, 1)}}
	e, _, _ := enforcer(p)
	a := app()
	got := make(chan *ale.Flow, 1)
	a.connect = func(netip.AddrPort) error {
		entered := make(chan struct{})
		go func() {
			close(entered)
			f, err := e.Accept(context.Background(), accepted())
			if err != nil {
				t.Error(err)
			}
			got <- f
		}()
		<-entered
		return nil
	}
	_, err := e.Connect(t.Context(), a)
	require.NoError(t, err)
	require.Equal(t, origin, (<-got).Original)
}

func TestDirectConnectionHasNoRecords(t *testing.T) {
	e, _, _ := enforcer(&policy{})
	_, err := e.Connect(t.Context(), app())
	require.NoError(t, err)
	f, err := e.Accept(t.Context(), accepted())
	require.NoError(t, err)
	require.Empty(t, f.Records, "SC-01")
}

// SC-61, SC-63, SC-85: a redirect that breaks a rule is dropped and told of.
func TestInvalidRedirectKeepsTheDestination(t *testing.T) {
	for name, c := range map[string]struct {
		to   netip.AddrPort
		pid  uint32
		h    redirect.Handle
		rule string
	}{
		"SC-61 no target pid":    {proxy, 0, 1, "CR-01"},
		"SC-63 no handle":        {proxy, 7, 0, "CR-03"},
		"SC-85 another family":   {netip.MustParseAddrPort("[::1]:8080"), 7, 1, "CR-07"},
		"v4-mapped for plain v4": {netip.MustParseAddrPort("[::ffff:127.0.0.1]:8080"), 7, 1, "CR-07"},
		"port zero":              {netip.MustParseAddrPort("127.0.0.1:0"), 7, 1, "CR-10"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &policy{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){fwpm.LayerALEConnectRedirectV4: redirectTo(c.to, c.pid, c.h)}}
			e, store, events := enforcer(p)
			a := app()
			f, err := e.Connect(t.Context(), a)
			require.NoError(t, err)
			require.Equal(t, origin, a.to)
			require.False(t, f.Redirected)
			require.Len(t, *events, 1)
			require.False(t, (*events)[0].Applied)
			require.Equal(t, c.rule, (*events)[0].Rule)
			require.Zero(t, store.Len())
		})
	}
}

// SC-65, SC-18, ALE-LAY-14: another host is asked about twice and makes no record.
func TestRemoteRedirectAsksTwice(t *testing.T) {
	other := netip.MustParseAddrPort("203.0.113.9:443")
	p := &policy{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){fwpm.LayerALEConnectRedirectV4: redirectTo(other, 0, 0)}}
	e, store, _ := enforcer(p)
	_, err := e.Connect(t.Context(), app())
	require.NoError(t, err)
	require.Contains(t, p.layers(), "ALE_AUTH_CONNECT_V4 198.51.100.7:80\nALE_AUTH_CONNECT_V4 203.0.113.9:443")
	require.NotZero(t, p.seen[3].Flags&fwp.FlagIsHonoringPolicyAuthorize)
	require.Zero(t, store.Len(), "CR-14")

	p.at[fwpm.LayerALEAuthConnectV4] = func(in *fwps.Incoming, d *fwps.Decision) {
		if in.Remote == origin {
			d.Action = fwp.ActionBlock
		}
	}
	a := app()
	_, err = e.Connect(t.Context(), a)
	var b *ale.BlockedError
	require.ErrorAs(t, err, &b)
	require.False(t, a.to.IsValid(), "a blocked connection was let go")
}

// SC-84, ALE-LAY-16: a dual-stack socket is redirected at V6 and authorized at V4.
func TestMappedDestination(t *testing.T) {
	mapped := netip.MustParseAddrPort("[::ffff:127.0.0.1]:8080")
	p := &policy{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){fwpm.LayerALEConnectRedirectV6: redirectTo(mapped, 7, 1)}}
	e, _, _ := enforcer(p)
	a := app()
	a.in.Local, a.in.Remote = netip.MustParseAddrPort("[::]:0"), netip.MustParseAddrPort("[::ffff:198.51.100.7]:80")
	_, err := e.Connect(t.Context(), a)
	require.NoError(t, err)
	require.Equal(t, mapped, a.to)
	require.Contains(t, p.layers(), "ALE_CONNECT_REDIRECT_V6 [::ffff:198.51.100.7]:80\nALE_AUTH_CONNECT_V4 127.0.0.1:8080")
	f, err := e.Accept(t.Context(), accepted())
	require.NoError(t, err)
	require.Len(t, f.Records, 1)
}

// SC-68 and its switch (AMB-23); a failed callout blocks in both.
func TestBlockAtRedirect(t *testing.T) {
	for _, c := range []struct {
		name            string
		sw, fault, stop bool
	}{
		{"goes on to AUTH_CONNECT", false, false, false}, {"switch", true, false, true}, {"fault", false, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &policy{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){fwpm.LayerALEConnectRedirectV4: func(_ *fwps.Incoming, d *fwps.Decision) {
				d.Action, d.Faulted, d.Deciding = fwp.ActionBlock, c.fault, 0
				d.Steps = append(d.Steps, fwps.Step{Filter: 9, Name: "nine", Callout: "c", Rule: "AMB-42", Why: "it trapped"})
			}}}
			e := ale.New(ale.Options{Classifier: p, Store: memstore.New(0), BlockAtRedirect: c.sw})
			_, err := e.Connect(t.Context(), app())
			if !c.stop {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, `/bin/app[42] to 198.51.100.7:80 blocked at ALE_CONNECT_REDIRECT_V4 by filter 9 "nine", callout "c" (AMB-42): it trapped`)
		})
	}
}

// A record that cannot be kept, a connect that fails and a chain without end.
func TestNothingIsLetGoWithoutItsRecord(t *testing.T) {
	p := &policy{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){fwpm.LayerALEConnectRedirectV4: redirectTo(proxy, 7, 1)}}
	a := app()
	_, err := ale.New(ale.Options{Classifier: p, Store: full{memstore.New(0)}}).Connect(t.Context(), a)
	require.ErrorContains(t, err, "the redirect record was not kept")
	require.False(t, a.to.IsValid())

	e, store, events := enforcer(p)
	refusal := errors.New("connection refused")
	a.connect = func(netip.AddrPort) error { return refusal }
	_, err = e.Connect(t.Context(), a)
	require.ErrorIs(t, err, refusal, "SC-90")
	require.Zero(t, store.Len())
	require.Len(t, *events, 2, "the redirect, and that nobody listens there")
	require.NoError(t, (*events)[0].Err)
	require.Equal(t, refusal, (*events)[1].Err)
	require.Equal(t, proxy, (*events)[1].Target)
	require.Equal(t, "/bin/app", (*events)[1].AppID)

	a = app()
	for range redirect.MaxHops {
		a.in.Records = a.in.Records.With(&redirect.Hop{Handle: 99})
	}
	_, err = e.Connect(t.Context(), a)
	require.ErrorContains(t, err, "proxy loop")
}

// A non-blocking connect has been let go: its record waits for the accept.
func TestInProgress(t *testing.T) {
	p := &policy{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){fwpm.LayerALEConnectRedirectV4: redirectTo(proxy, 7, 1)}}
	e, store, _ := enforcer(p)
	a := app()
	a.connect = func(netip.AddrPort) error { return ale.ErrInProgress }
	f, err := e.Connect(t.Context(), a)
	require.ErrorIs(t, err, ale.ErrInProgress)
	f.Detach()
	got, err := e.Accept(t.Context(), accepted())
	require.NoError(t, err)
	require.Len(t, got.Records, 1)
	got.Close()
	require.Zero(t, store.Len())
}

type full struct{ redirect.Store }

func (full) Put(*redirect.Hop) error { return redirect.ErrFull }
