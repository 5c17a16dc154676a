package ale_test

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/race"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/arenastore"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

func fromClient(_ context.Context, to ale.Target) (netip.AddrPort, error) { return client, nil }

func bindAsAsked(_ context.Context, want netip.AddrPort) (netip.AddrPort, error) { return want, nil }

// carry connects, and nothing is in progress.
func carry(c *ale.Carrier, in fwps.Incoming, bind ale.BindFunc, connect ale.ConnectFunc) error {
	f, err := c.Connect(context.Background(), in, bind, connect)
	if f != nil {
		return errors.New("its flow was given away")
	}
	return err
}

// A carried connection has its records when it is accepted, like any other, and
// leaves nothing.
func TestCarrierRedirects(t *testing.T) {
	p := &policy{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){fwpm.LayerALEConnectRedirectV4: redirectTo(proxy, 7, 1)}}
	e, store, _ := enforcer(p)
	c := e.NewCarrier()
	for range 3 {
		require.NoError(t, carry(c, app().in, nil, fromClient))
		f, err := e.Accept(t.Context(), accepted())
		require.NoError(t, err)
		require.Len(t, f.Records, 1)
		require.Equal(t, origin, f.Original)
		require.Equal(t, "rec", string(f.Records[0].Record))
		require.Equal(t, "ctx", string(f.Records[0].Context))
		f.Close()
		require.Zero(t, store.Len())
	}
}

// One connection's block, binding and flow are not the next one's.
func TestCarrierForgets(t *testing.T) {
	p := &policy{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){fwpm.LayerALEAuthConnectV4: func(in *fwps.Incoming, d *fwps.Decision) {
		if in.Remote.Port() == 25 {
			d.Action = fwp.ActionBlock
		}
	}}}
	e, _, _ := enforcer(p)
	c := e.NewCarrier()
	mail := app().in
	mail.Remote = netip.AddrPortFrom(origin.Addr(), 25)
	var blocked *ale.BlockedError
	require.ErrorAs(t, carry(c, mail, bindAsAsked, fromClient), &blocked)
	require.NoError(t, carry(c, app().in, bindAsAsked, fromClient))
	ends := map[uint64]bool{}
	var implicit int
	for _, in := range p.seen {
		ends[in.EndpointID] = true
		if in.Layer == fwpm.LayerALEBindRedirectV4 {
			implicit++
		}
	}
	require.Len(t, ends, 2)
	require.Equal(t, 2, implicit, "each is bound")
}

// FLOW_ESTABLISHED of a connection in progress is asked when its owner says so, whatever
// was carried meanwhile (ALE-LAY-10).
func TestCarrierGivesAwayWhatIsInProgress(t *testing.T) {
	p := &policy{}
	e, _, _ := enforcer(p)
	c := e.NewCarrier()
	f, err := c.Connect(t.Context(), app().in, nil, func(context.Context, ale.Target) (netip.AddrPort, error) { return client, ale.ErrInProgress })
	require.ErrorIs(t, err, ale.ErrInProgress)
	other := app().in
	other.Remote = netip.AddrPortFrom(origin.Addr(), 25)
	require.NoError(t, carry(c, other, nil, fromClient))
	f.Established()
	f.Detach()
	var established []netip.AddrPort
	for _, in := range p.seen {
		if in.Layer == fwpm.LayerALEFlowEstablishedV4 {
			established = append(established, in.Remote)
			require.Equal(t, client, in.Local)
		}
	}
	require.Equal(t, []netip.AddrPort{other.Remote, origin}, established)
}

// CO-FLW-03: nobody hears of a flow's abort later, so who let it go is told now.
func TestCarrierTellsOfAnAbort(t *testing.T) {
	for _, at := range []fwpm.LayerID{fwpm.LayerALEAuthConnectV4, fwpm.LayerALEFlowEstablishedV4} {
		p := &policy{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){at: func(in *fwps.Incoming, _ *fwps.Decision) { in.Flow.Abort() }}}
		e, _, _ := enforcer(p)
		c := e.NewCarrier()
		require.Equal(t, ale.ErrAborted, carry(c, app().in, nil, fromClient))
		delete(p.at, at)
		require.NoError(t, carry(c, app().in, nil, fromClient), "the next is not")
	}
	p := &policy{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){fwpm.LayerALEAuthConnectV4: func(in *fwps.Incoming, _ *fwps.Decision) { in.Flow.Abort() }}}
	e, _, _ := enforcer(p)
	require.Equal(t, ale.ErrAborted, carry(e.NewCarrier(), app().in, nil, func(context.Context, ale.Target) (netip.AddrPort, error) { return client, ale.ErrInProgress }))
}

// keeper is a callout that keeps the flows it sees.
type keeper struct{ flows []*fwps.Flow }

func (k *keeper) Classify(_ context.Context, call *fwps.Call, v *fwps.Verdict) error {
	v.Action = fwp.ActionPermit
	k.flows = append(k.flows, call.In.Flow)
	return nil
}

// What a callout kept of one connection never reaches another one.
func TestCarrierDoesNotReuseAFlowThatACalloutSaw(t *testing.T) {
	k := new(keeper)
	e := ale.New(ale.Options{Classifier: engine(t, nil, k, fwpm.LayerALEAuthConnectV4), Store: memstore.New(0)})
	c := e.NewCarrier()
	for range 3 {
		require.NoError(t, carry(c, app().in, nil, fromClient))
	}
	require.Len(t, k.flows, 3)
	require.NotSame(t, k.flows[0], k.flows[1])
	require.NotSame(t, k.flows[1], k.flows[2])
}

// CO-FLW-03: nobody hears the connection close, so the contexts go at once.
func TestCarrierEndsFlowContexts(t *testing.T) {
	k := new(contextCallout)
	e := ale.New(ale.Options{Classifier: engine(t, nil, k, fwpm.LayerALEFlowEstablishedV4), Store: memstore.New(0)})
	c := e.NewCarrier()
	for n := range int64(3) {
		require.NoError(t, carry(c, app().in, nil, fromClient))
		require.Equal(t, n+1, k.made.Load())
		require.Equal(t, n+1, k.gone.Load())
	}
}

// A permitted connect allocates nothing. A redirected one allocates what remains
// of it: its record, and the record's two blobs together.
func TestCarrierAllocations(t *testing.T) {
	if race.Enabled {
		t.Skip("sync.Pool forgets at random under the race detector: CI runs it without")
	}
	for name, store := range map[string]redirect.Store{"memstore": memstore.New(0), "arenastore": arenastore.New(arenastore.Options{})} {
		permit := ale.New(ale.Options{Classifier: engine(t, nil, fwps.CalloutFunc(nothing)), Store: store})
		c := permit.NewCarrier()
		in := app().in
		require.Zero(t, testing.AllocsPerRun(1000, func() {
			if err := carry(c, in, bindAsAsked, fromClient); err != nil {
				t.Error(err)
			}
		}), name)

		redirecting := ale.New(ale.Options{Classifier: engine(t, nil, toProxy, fwpm.LayerALEConnectRedirectV4), Store: store})
		c = redirecting.NewCarrier()
		const n = 1000
		connects := func() {
			for range n { // The port is used again: the record before goes.
				if err := carry(c, in, bindAsAsked, fromClient); err != nil {
					t.Error(err)
				}
			}
		}
		connects()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		connects()
		runtime.ReadMemStats(&after)
		require.Less(t, float64(after.Mallocs-before.Mallocs)/n, 2.5, name)
	}
}

func BenchmarkConnect(b *testing.B) {
	in := app().in
	run := func(name string, e *ale.Enforcer, connect func(e *ale.Enforcer) func() error) {
		b.Run(name, func(b *testing.B) {
			f := connect(e)
			b.ReportAllocs()
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	socket := func(e *ale.Enforcer) func() error {
		return func() error {
			s := e.NewSocket(in)
			f, err := s.Connect(context.Background(), in.Remote, fromClient)
			f.Close()
			s.Close()
			return err
		}
	}
	carrier := func(e *ale.Enforcer) func() error {
		c := e.NewCarrier()
		return func() error { return carry(c, in, nil, fromClient) }
	}
	permit := ale.New(ale.Options{Classifier: engine(b, nil, fwps.CalloutFunc(nothing)), Store: memstore.New(0)})
	redirect := ale.New(ale.Options{Classifier: engine(b, nil, toProxy, fwpm.LayerALEConnectRedirectV4), Store: memstore.New(0)})
	run("permit/socket", permit, socket)
	run("permit/carrier", permit, carrier)
	run("redirect/socket", redirect, socket)
	run("redirect/carrier", redirect, carrier)
}

var toProxy = fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error {
	v.Action, v.Redirect, v.To, v.TargetPID = fwp.ActionPermit, true, proxy, 7
	v.Record, v.Context = append(v.Record, "record"...), append(v.Context, "context"...)
	return nil
})

// AMB-19: what a proxy that lives elsewhere connects with is on record until its owner
// gives it back.
func TestCarrierLeavesRecordsToTheirOwner(t *testing.T) {
	p := redirecting()
	e, store, _ := enforcer(p)
	hop := &redirect.Hop{Serial: store.NewSerial(), Handle: 1}
	require.NoError(t, store.Put(hop))
	in := app().in
	in.Records = redirect.Records{hop}
	c := e.NewCarrier()
	block := func(_ *fwps.Incoming, d *fwps.Decision) { d.Action = fwp.ActionBlock }
	for _, blocks := range []bool{false, true, false} {
		if delete(p.at, fwpm.LayerALEAuthConnectV4); blocks {
			p.at[fwpm.LayerALEAuthConnectV4] = block
		}
		err := carry(c, in, nil, fromClient)
		require.Equal(t, blocks, err != nil)
		require.Equal(t, 1, store.Len())
	}
	e.Release(in.Records)
	require.Zero(t, store.Len())
}
