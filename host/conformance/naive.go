package conformance

import (
	"cmp"
	"context"
	"slices"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// Naive wraps the engine with a second arbiter that is slow and obvious: it looks
// at every filter for each question, compares values as values and has the table
// of ARB-05 as a table. It shares no code with the engine's.
func Naive(e *host.Engine) fwps.Classifier {
	return &naive{e, func(l fwpm.LayerID) []column { return columns(e.Enforced(), l) }}
}

type naive struct {
	*host.Engine
	columns func(fwpm.LayerID) []column
}

// A column is a sublayer with its filters of one layer, in the order of asking.
type column struct {
	sublayer fwpm.SublayerID
	filters  []*fwpm.Filter
}

func columns(p *fwpm.Policy, l fwpm.LayerID) (out []column) {
	for _, sub := range sublayers(p) {
		out = append(out, column{sub.ID, filtersOf(p, sub.ID, l)})
	}
	return out
}

// state is what goes from one sublayer to the next.
type state struct {
	action fwp.Action // zero: none yet
	hard   bool
	step   int
}

func (n *naive) Classify(ctx context.Context, in *fwps.Incoming, d *fwps.Decision) {
	n.decide(ctx, in, d)
	n.Decided(in, d)
}

func (n *naive) decide(ctx context.Context, in *fwps.Incoming, d *fwps.Decision) {
	var steps []fwps.Step
	for range arbitrate.MaxRounds {
		d.Reset(in)
		d.Steps = steps
		next := n.once(ctx, in, d)
		if next == nil {
			return
		}
		steps, in = d.Steps, next
	}
	d.Steps = append(d.Steps, fwps.Step{Layer: in.Layer, Action: fwp.ActionBlock, Hard: true, Rule: "AMB-29", Why: "the classification was begun again too often"})
	d.Action, d.Rights, d.Deciding, d.Faulted, d.Absorbed = fwp.ActionBlock, 0, len(d.Steps)-1, true, false
}

// once asks every sublayer; it returns what to ask about again, nil if all is done.
func (n *naive) once(ctx context.Context, in *fwps.Incoming, d *fwps.Decision) *fwps.Incoming {
	q := &question{n: n, ctx: ctx, in: in, d: d}
	st := state{step: -1}
	for _, c := range n.columns(in.Layer) {
		for _, f := range c.filters {
			if !n.matches(f, q.in) {
				continue
			}
			new, veto, decided := q.ask(f, c.sublayer)
			if q.again != nil {
				return q.again
			}
			if decided {
				st = combine(d, st, new, veto)
				break
			}
		}
		publish(d, st)
	}
	if !d.Faulted {
		q.late(st)
	}
	return q.again
}

func publish(d *fwps.Decision, st state) {
	if st.action == 0 {
		return
	}
	d.Action, d.Deciding, d.Rights = st.action, st.step, fwps.RightActionWrite
	if st.hard {
		d.Rights = 0
	}
	d.Absorbed = d.Steps[st.step].Absorb
}

// combine is the table of ARB-05.
func combine(d *fwps.Decision, old, new state, veto bool) state {
	s := &d.Steps[new.step]
	s.Hard = new.hard
	type row struct {
		action fwp.Action
		hard   bool
	}
	unchanged := false
	switch (row{old.action, old.hard}) {
	case row{fwp.ActionPermit, true}:
		if new.action == fwp.ActionBlock && veto {
			s.Veto, s.Rule, d.Vetoed = true, "ARB-06", true
			new.hard = true
			return new
		}
		unchanged = true
	case row{fwp.ActionBlock, true}:
		unchanged = true
	}
	if unchanged {
		s.Rule = "ARB-07"
		if s.Why == "" {
			s.Why = "a heavier sublayer decided hard"
		}
		return old
	}
	return new
}

func sublayers(p *fwpm.Policy) []fwpm.Sublayer {
	subs := append(slices.Clone(p.Sublayers), fwpm.Sublayer{ID: fwpm.SublayerUniversal, Weight: fwpm.SublayerUniversalWeight}, fwpm.Sublayer{ID: fwpm.SublayerInspection})
	slices.SortFunc(subs, func(a, b fwpm.Sublayer) int { return cmp.Or(cmp.Compare(b.Weight, a.Weight), cmp.Compare(a.ID, b.ID)) })
	last := slices.IndexFunc(subs, func(s fwpm.Sublayer) bool { return s.ID == fwpm.SublayerInspection }) // BFE-SUB-03
	return append(slices.Delete(subs, last, last+1), fwpm.Sublayer{ID: fwpm.SublayerInspection})
}

// filtersOf lists the filters of a layer in one sublayer, or in all for "".
func filtersOf(p *fwpm.Policy, sub fwpm.SublayerID, l fwpm.LayerID) []*fwpm.Filter {
	var out []*fwpm.Filter
	for i := range p.Filters {
		f := &p.Filters[i]
		if f.Layer == l && (sublayerOf(f) == sub || sub == "") {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b *fwpm.Filter) int { return cmp.Or(cmp.Compare(weight(b), weight(a)), cmp.Compare(a.ID, b.ID)) })
	return out
}

// sublayerOf is BFE-SUB-02.
func sublayerOf(f *fwpm.Filter) fwpm.SublayerID { return cmp.Or(f.Sublayer, fwpm.SublayerUniversal) }

// weight is BFE-WGT-01.
func weight(f *fwpm.Filter) uint64 {
	switch f.Weight.Type {
	case fwp.Uint64:
		return f.Weight.Value
	case fwp.Uint8:
		return f.Weight.Value<<60 + auto(f.Conditions)
	}
	return auto(f.Conditions)
}

// auto is the weight as published (AMB-40): each field counts as its vaguest
// alternative does, in units of 2^32.
func auto(cs []fwpm.Condition) uint64 {
	vaguest := map[fwpm.ConditionID]int{}
	for _, c := range cs {
		points := 32
		switch {
		case c.Value.Type == fwp.V4AddrMask:
			points = 1 + 4*c.Value.Prefix.Bits()
		case c.Value.Type == fwp.V6AddrMask:
			points = 1 + c.Value.Prefix.Bits()
		case c.Match == fwp.MatchEqual:
			points = 130
		case c.Match == fwp.MatchRange:
			points = 64
		}
		if old, ok := vaguest[c.Field]; !ok || points < old {
			vaguest[c.Field] = points
		}
	}
	total := 0
	for _, points := range vaguest {
		total += points
	}
	return uint64(total) << 32
}
