package conformance

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/race"
	"github.com/calloutd/calloutd/host/redirect"
)

// perPolicy is how many connections each random policy is asked about: with 100
// policies for each of 18 layers, and ten times as many for those where requests
// change, more than a million pairs. The race detector has little to find here.
func perPolicy() int {
	if race.Enabled {
		return 10
	}
	return 190
}

// The engine and the naive arbiter decide alike, step by step, whatever the
// policy, the connection and the answers of the callouts.
func TestDifferential(t *testing.T) {
	var seen coverage
	t.Run("layers", func(t *testing.T) {
		for _, l := range fwpm.Layers() {
			t.Run(short(l), func(t *testing.T) {
				t.Parallel()
				rounds := 1
				if !race.Enabled && (l.IsConnectRedirect() || l.IsBindRedirect()) {
					rounds = 10
				}
				for range rounds {
					rapid.Check(t, func(t *rapid.T) { differ(t, l, &seen) })
				}
			})
		}
	})
	if !t.Failed() {
		seen.enough(t)
	}
}

func FuzzDifferential(f *testing.F) {
	layer := rapid.SampledFrom(fwpm.Layers())
	f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) { differ(t, layer.Draw(t, "layer"), new(coverage)) }))
}

// coverage counts what the random policies and connections came to, so that a
// generator which has become timid is found out.
type coverage struct {
	pairs, permits, blocks, vetoes, faults, redirects, undecided atomic.Int64
	tests                                                        [32][16]atomic.Int64 // conditions by data type and match type
}

func (c *coverage) count(p *fwpm.Policy, d *fwps.Decision) {
	c.pairs.Add(1)
	for _, x := range []struct {
		n  *atomic.Int64
		is bool
	}{{&c.permits, d.Action == permitAction}, {&c.blocks, d.Action != permitAction}, {&c.vetoes, d.Vetoed}, {&c.faults, d.Faulted},
		{&c.redirects, d.Redirected()}, {&c.undecided, d.Deciding < 0}} {
		if x.is {
			x.n.Add(1)
		}
	}
}

func (c *coverage) policy(p *fwpm.Policy) {
	for i := range p.Filters {
		for _, cond := range p.Filters[i].Conditions {
			c.tests[typeIndex(cond.Value.Type)][cond.Match].Add(1)
		}
	}
}

// enough requires a million pairs, every outcome, and every match type with
// every data type that it fits.
func (c *coverage) enough(t *testing.T) {
	if !race.Enabled && !testing.Short() {
		require.Greater(t, c.pairs.Load(), int64(1_000_000))
	}
	for what, n := range map[string]*atomic.Int64{"permits": &c.permits, "blocks": &c.blocks, "vetoes": &c.vetoes, "faults": &c.faults,
		"redirects": &c.redirects, "defaults": &c.undecided} {
		require.Greater(t, n.Load(), c.pairs.Load()/1000, what)
	}
	for _, typ := range conditionTypes {
		for m := range matchTypes {
			if fitting(typ, m) {
				require.NotZero(t, c.tests[typeIndex(typ)][m].Load(), "no condition had %s with %s", typ, m)
			}
		}
	}
}

// An arbiter is one of the two, and what callouts saw of it.
type arbiter struct {
	fwps.Classifier
	d    fwps.Decision
	seen []sight
}

// A sight is what a callout saw in one call.
type sight struct {
	filter   fwpm.FilterID
	state    redirect.State
	rights   fwps.Rights
	flags    uint32
	reason   uint32
	versions int
	flow     uint64
}

func (a *arbiter) ask(in *fwps.Incoming) {
	a.seen = a.seen[:0]
	a.Classify(context.WithValue(context.Background(), arbiterKey{}, a), in, &a.d)
}

type arbiterKey struct{}

func differ(t *rapid.T, l fwpm.LayerID, seen *coverage) {
	opts := host.Options{PrefixMatchesStart: rapid.Bool().Draw(t, "prefix matches start"), FaultContinues: rapid.Bool().Draw(t, "fault continues")}
	e := host.New(opts)
	callouts := drawCallouts(t)
	p := drawPolicy(t, l, callouts)
	for _, c := range callouts {
		if c.registered {
			_, _, err := e.RegisterCallout(c.id, c)
			require.NoError(t, err)
		}
	}
	require.NoError(t, e.Update(func(live *fwpm.Policy) error { *live = *p.Clone(); return nil }))
	seen.policy(p)
	cs := columns(p, l)
	engine := &arbiter{Classifier: e}
	second := &arbiter{Classifier: &naive{e, func(fwpm.LayerID) []column { return cs }}}
	g := drawConnections(t, l, callouts)
	for range perPolicy() {
		in := g.next()
		engine.ask(in)
		second.ask(in)
		if diff := difference(engine, second); diff != "" {
			t.Fatalf("%s\nconnection: %+v\npolicy: %+v\ncallouts: %v", diff, *in, *p, callouts)
		}
		seen.count(p, &engine.d)
	}
}

// difference says what two arbiters see differently, empty if nothing.
func difference(a, b *arbiter) string {
	x, y := &a.d, &b.d
	switch {
	case x.Action != y.Action || x.Rights != y.Rights || x.Deciding != y.Deciding:
	case x.Faulted != y.Faulted || x.Vetoed != y.Vetoed || x.Absorbed != y.Absorbed:
	case !slices.Equal(x.Steps, y.Steps) || !slices.Equal(a.seen, b.seen):
	case !sameConnect(x.Connect, y.Connect) || !sameBind(x.Bind, y.Bind):
	default:
		return ""
	}
	return fmt.Sprintf("engine %s\nnaive  %s", describe(a), describe(b))
}

func describe(a *arbiter) string {
	d := &a.d
	s := fmt.Sprintf("%s%s deciding %d faulted %v", d.Action, softness(d), d.Deciding, d.Faulted)
	for i := range d.Steps {
		s += fmt.Sprintf("\n  %s absorb %v reauth %v veto %v", step(&d.Steps[i]), d.Steps[i].Absorb, d.Steps[i].Reauth, d.Steps[i].Veto)
	}
	for r := d.Connect; r != nil && r.Previous != nil; r = r.Previous {
		s += fmt.Sprintf("\n  version %s local %s by %d of %s", connectRequest(r), r.Local, r.ModifierFilterID, r.ModifierCallout)
	}
	for r := d.Bind; r != nil; r = r.Previous {
		s += fmt.Sprintf("\n  version %s by %d", r.Local, r.ModifierFilterID)
	}
	return s + fmt.Sprintf("\n  callouts saw %+v", a.seen)
}

func sameConnect(a, b *fwps.ConnectRequest) bool {
	for ; a != nil && b != nil; a, b = a.Previous, b.Previous {
		if a.Remote != b.Remote || a.Local != b.Local || a.LocalRedirectTargetPID != b.LocalRedirectTargetPID || a.LocalRedirectHandle != b.LocalRedirectHandle ||
			a.ModifierFilterID != b.ModifierFilterID || a.ModifierCallout != b.ModifierCallout || string(a.LocalRedirectContext) != string(b.LocalRedirectContext) {
			return false
		}
	}
	return a == nil && b == nil
}

func sameBind(a, b *fwps.BindRequest) bool {
	for ; a != nil && b != nil; a, b = a.Previous, b.Previous {
		if a.Local != b.Local || a.ModifierFilterID != b.ModifierFilterID || a.ModifierCallout != b.ModifierCallout {
			return false
		}
	}
	return a == nil && b == nil
}
