package conformance

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/race"
)

// A promising callout answers by one of its inputs, and says that its answers are
// cacheable if they are: by what is of one connection alone it does not.
type promising struct {
	id        fwpm.CalloutID
	answers   []*answering
	reads     string
	cacheable bool
	epoch     fwps.Epoch
	code      atomic.Uint64 // another version answers otherwise
}

// reading are the inputs that such a callout can go by.
var reading = map[string]func(c *fwps.Call) uint64{
	"nothing":     func(*fwps.Call) uint64 { return 0 },
	"remote":      func(c *fwps.Call) uint64 { return uint64(len(c.In.Remote.Addr().String())) },
	"remote port": func(c *fwps.Call) uint64 { return uint64(c.In.Remote.Port()) },
	"local":       func(c *fwps.Call) uint64 { return uint64(c.In.Local.Port()) + uint64(len(c.In.Local.Addr().String())) },
	"program":     func(c *fwps.Call) uint64 { return uint64(len(c.In.AppID) + 2*len(c.In.OriginalAppID)) },
	"user":        func(c *fwps.Call) uint64 { return uint64(c.In.UserID) + uint64(len(c.In.Groups)) },
	"process":     func(c *fwps.Call) uint64 { return uint64(c.In.ProcessID) },
	"flags":       func(c *fwps.Call) uint64 { return uint64(c.In.Flags) + uint64(c.In.Protocol) },
	"direction":   func(c *fwps.Call) uint64 { return map[bool]uint64{true: 1}[c.In.Inbound] },
	"system":      func(c *fwps.Call) uint64 { return uint64(c.In.CompartmentID) + uint64(c.In.ReauthorizeReason) },
	"other": func(c *fwps.Call) uint64 {
		return uint64(len(c.In.Other)) + uint64(len(c.In.Other[fwpm.ConditionPeerName].Text))
	},
	"state": func(c *fwps.Call) uint64 { return uint64(c.State) + uint64(len(c.In.Records)) + c.FlowContext },
	"request": func(c *fwps.Call) uint64 {
		if c.Connect != nil {
			return uint64(c.Connect.Remote.Port()) + uint64(c.Rights)
		}
		return uint64(c.Rights) + uint64(c.Filter.ID)
	},
	"endpoint": func(c *fwps.Call) uint64 { return c.In.EndpointID }, // of one connection alone
}

func (p *promising) Classify(ctx context.Context, c *fwps.Call, v *fwps.Verdict) error {
	since := p.epoch.Now()
	err := p.answers[(reading[p.reads](c)+p.code.Load())%uint64(len(p.answers))].Classify(ctx, c, v)
	v.Cacheable, v.Since = p.cacheable, since
	return err
}

// drawPromising draws the callouts of a walk. Whatever one of a policy does may keep
// its decisions out of the cache, and known ones with callouts would be few: in
// a friendly walk none does, and the first one redirects.
func drawPromising(t *rapid.T, friendly bool) (out []*promising, all []*answering) {
	names := rapid.SampledFrom(slices.Sorted(maps.Keys(reading)))
	for i := range 4 {
		p := &promising{id: fwpm.CalloutID(fmt.Sprint("callout", i)), reads: names.Draw(t, "reads"), cacheable: friendly || !chance(t, 4)}
		for range 3 {
			a := drawCallouts(t)[i]
			if p.answers = append(p.answers, a); friendly || rapid.IntRange(0, 3).Draw(t, "plain") > 0 {
				a.Fails, a.Pends = "", ""
			}
			if friendly && i == 0 {
				a.Action, a.Target, a.Acquires, a.Applies = fwp.ActionPermit, netip.AddrPortFrom(pick(t, addresses4), 8080), 0, 0
			}
		}
		p.cacheable = p.cacheable && p.reads != "endpoint"
		out, all = append(out, p), append(all, p.answers[0])
	}
	return out, all
}

// An engine that keeps decisions decides as the naive arbiter, which knows none:
// whatever comes again and differs in whatever one field, and while filters and
// objects, registrations and the code behind them change.
func TestCachedDifferential(t *testing.T) {
	steps := 400
	if race.Enabled { // It has little to find here.
		steps = 100
	}
	var pairs, hits, redirects, asked atomic.Int64
	t.Run("layers", func(t *testing.T) {
		for _, l := range fwpm.Layers() {
			if race.Enabled && l.IsV6() {
				continue
			}
			t.Run(short(l), func(t *testing.T) {
				t.Parallel()
				rapid.Check(t, func(t *rapid.T) {
					w := newWalk(t, l)
					for range steps {
						w.step(t)
					}
					pairs.Add(int64(w.pairs))
					hits.Add(int64(w.hits))
					redirects.Add(int64(w.redirects))
					asked.Add(int64(w.asked))
				})
			})
		}
	})
	if t.Failed() {
		return
	}
	require.Greater(t, hits.Load(), pairs.Load()/20, "of %d pairs so many were known", pairs.Load())
	require.Greater(t, asked.Load(), int64(100), "known answers of callouts")
	require.Greater(t, redirects.Load(), int64(20), "known redirects")
}

// A walk asks about connections that come again, and now and then changes something.
type walk struct {
	layer                         fwpm.LayerID
	friendly                      bool // to the cache
	e                             *host.Engine
	callouts                      []*promising
	answering                     []*answering
	unregister                    map[fwpm.CalloutID]func() error
	engine, second                *arbiter
	columns                       []column
	connections                   *connections
	pool                          []fwps.Incoming
	pairs, hits, redirects, asked int
}

func newWalk(t *rapid.T, l fwpm.LayerID) *walk {
	w := &walk{layer: l, e: host.New(host.Options{FaultContinues: rapid.Bool().Draw(t, "fault continues"), CacheSize: pick(t, []int{1, 16, 4096})}),
		unregister: map[fwpm.CalloutID]func() error{}, friendly: rapid.Bool().Draw(t, "friendly")}
	w.callouts, w.answering = drawPromising(t, w.friendly)
	w.engine, w.second = &arbiter{Classifier: w.e}, &arbiter{Classifier: &naive{w.e, func(fwpm.LayerID) []column { return w.columns }}}
	w.warm(t)
	for _, c := range w.callouts {
		w.register(t, c)
	}
	w.change(t)
	w.connections = drawConnections(t, l, w.answering)
	for range 6 {
		w.pool = append(w.pool, w.another())
	}
	return w
}

// another is a connection for the pool. Records and flows are of one alone.
func (w *walk) another() fwps.Incoming {
	in := *w.connections.next()
	if w.friendly {
		in.Records, in.Flow = nil, nil
	}
	return in
}

// warm lets a callout say at the layer that its answers are cacheable: before, a
// small policy has no use for the cache.
func (w *walk) warm(t *rapid.T) {
	_, unregister, err := w.e.RegisterCallout("warm", fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error {
		v.Cacheable = true
		return nil
	}))
	require.NoError(t, err)
	require.NoError(t, w.e.Update(func(p *fwpm.Policy) error {
		p.Callouts = []fwpm.Callout{{ID: "warm", Name: "c"}}
		p.Filters = []fwpm.Filter{{ID: 1, Name: "f", Layer: w.layer, Action: fwp.ActionCalloutUnknown, Callout: "warm"}}
		return nil
	}))
	w.engine.ask(&fwps.Incoming{Layer: w.layer})
	require.NoError(t, unregister())
}

func (w *walk) register(t *rapid.T, c *promising) {
	_, unregister, err := w.e.RegisterCallout(c.id, c)
	require.NoError(t, err)
	w.unregister[c.id] = unregister
}

func (w *walk) change(t *rapid.T) {
	p := drawPolicy(t, w.layer, w.answering)
	if w.friendly { // The first callout is asked about everything.
		p.Filters = append(p.Filters, fwpm.Filter{ID: 1 << 20, Name: "all", Layer: w.layer, Action: fwp.ActionCalloutUnknown, Callout: w.callouts[0].id})
	}
	require.NoError(t, w.e.Update(func(live *fwpm.Policy) error { *live = *p.Clone(); return nil }))
	w.columns = columns(p, w.layer)
}

func (w *walk) step(t *rapid.T) {
	r := w.connections.rand
	switch r.IntN(200) {
	case 0:
		w.change(t)
	case 1:
		if c := w.callouts[r.IntN(len(w.callouts))]; w.unregister[c.id]() == nil {
			if c.code.Add(1); r.IntN(2) == 0 {
				w.register(t, c)
			}
		} else if !w.e.Slot(c.id).Busy() {
			w.register(t, c)
		}
	case 2:
		c := w.callouts[r.IntN(len(w.callouts))]
		c.code.Add(1)
		c.epoch.End()
	case 3:
		w.pool[r.IntN(len(w.pool))] = w.another()
	}
	in := w.pool[r.IntN(len(w.pool))]
	if r.IntN(3) == 0 {
		w.differ(&in)
	}
	in.EndpointID = r.Uint64()
	w.engine.ask(&in)
	w.second.ask(&in)
	w.pairs++
	if w.engine.d.Cached {
		w.engine.seen, w.second.seen = nil, nil // Nobody was asked.
		w.hits++
		for i := range w.engine.d.Steps {
			if w.engine.d.Steps[i].Callout != "" {
				w.asked++
				break
			}
		}
		if w.engine.d.Redirected() {
			w.redirects++
		}
	}
	if diff := difference(w.engine, w.second); diff != "" {
		t.Fatalf("cached %v: %s\nconnection: %+v\npolicy: %+v\ncallouts: %v", w.engine.d.Cached, diff, in, *w.e.Policy(), w.answering)
	}
}

// differ makes one field that of another connection.
func (w *walk) differ(in *fwps.Incoming) {
	r, other := w.connections.rand, *w.connections.next()
	switch r.IntN(15) {
	case 0:
		in.Protocol = other.Protocol
	case 1:
		in.Inbound = other.Inbound
	case 2:
		in.Local = other.Local
	case 3:
		in.Remote = other.Remote
	case 4:
		in.Flags = other.Flags
	case 5:
		in.AppID = other.AppID
	case 6:
		in.OriginalAppID = other.OriginalAppID
	case 7:
		in.UserID = other.UserID
	case 8:
		in.UserKnown = other.UserKnown
	case 9:
		in.Groups = other.Groups
	case 10:
		in.CompartmentID, in.ReauthorizeReason = other.CompartmentID, other.ReauthorizeReason
	case 11:
		in.Other, in.PeerNames = other.Other, other.PeerNames
	case 12:
		in.Records = other.Records
	case 13:
		in.Flow = other.Flow
	case 14:
		in.ProcessID = r.Uint32N(3)
	}
}
