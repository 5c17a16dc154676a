package arbitrate

import (
	"context"
	"fmt"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// MaxRounds bounds how often one classification is begun again or a callout asked
// again because another one changed the request (AMB-29).
const MaxRounds = 8

// A run is one classification under way.
type run struct {
	p     *Program
	layer *layer // nil: no filter was ever there
	ctx   context.Context
	in    *fwps.Incoming
	d     *fwps.Decision
	// late are the filters whose callouts asked to hear of later changes. Nil: none.
	late *late
	// decided says that some sublayer decided, again that the layer is to be asked
	// from the start.
	decided, again bool
	// called says that some callout was asked.
	called bool

	question
	used int // of the filters that are known to match, those that were asked already
	// fresh is to be kept of what filters tell, shared of what callouts answer. Nil: nothing.
	fresh, shared *kept
}

// An answer is what one sublayer decided.
type answer struct {
	action fwp.Action // zero: no decision
	hard   bool
	veto   bool
	absorb bool
	step   *fwps.Step // the last of the decision's
}

// Classify asks every sublayer, the heaviest first, and leaves the outcome in
// d (ARB-01..ARB-10, spec 8.5). It has no error result: a failure is a block. It
// waits while a callout pends, and no longer than ctx.
func (p *Program) Classify(ctx context.Context, in *fwps.Incoming, d *fwps.Decision) {
	var r run
	r.p, r.layer, r.ctx, r.in, r.d = p, p.layer(in.Layer), ctx, in, d
	if l := r.layer; l != nil && l.cached(p.opts.Cache, in.Layer) {
		if r.take(p, l, in, d) {
			return
		}
		if r.learns && r.match == nil {
			r.fresh = r.learn(r.few, l.fields.inputs)
		}
	}
	d.Reset(in)
	for round := 1; ; round++ {
		r.pass()
		if r.late != nil {
			r.reauthorize()
		}
		if !r.again {
			if r.fresh != nil || r.shared != nil {
				r.keep()
			}
			return
		}
		if round == MaxRounds {
			r.refuse("AMB-29", "the classification was begun again too often")
			return
		}
		steps := d.Steps
		d.Reset(in)
		d.Steps, r.decided, r.again = steps, false, false
	}
}

// pass asks the sublayers once.
func (r *run) pass() {
	if r.layer == nil {
		if !r.in.Layer.Valid() {
			r.refuse("ALE-LAY-01", fmt.Sprintf("there is no layer %d", r.in.Layer))
		}
		return
	}
	for _, g := range r.layer.groups {
		if f := g.first(); f != nil {
			r.sublayer(g, int(f.place), f)
		} else {
			r.each(g)
		}
		if r.again {
			return
		}
	}
}

// first is the filter of a group that is first whatever is asked about, since it
// tests nothing and all others are of its sublayer: there is nothing to look for.
// Nil: there is none.
func (g *group) first() *filter {
	if b := &g.index.root; b.node == nil && b.subs&(b.subs-1) == 0 && b.n > 0 && b.head.has&^rounded == 0 {
		return b.head.f
	}
	return nil
}

// each asks the sublayers of a group.
func (r *run) each(g *group) {
	in, n := r.in, len(g.subs)
	var found [together]*filter
	firsts := found[:n]
	if r.match != nil {
		firsts, r.used = r.match.match[r.used:][:n], r.used+n
	} else if g.search(in, firsts); r.fresh != nil {
		r.fresh.match = append(r.fresh.match, firsts...)
	}
	for place, first := range firsts {
		if r.in != in { // A callout pended: what follows is a reauthorization.
			first = g.next(r.in, place, cursor{})
		}
		r.sublayer(g, place, first)
		if r.again {
			return
		}
	}
}

// search finds the first matching filter of each sublayer, nil where there is none.
func (g *group) search(in *fwps.Incoming, firsts []*filter) {
	var q search
	q.begin(in, uint8(1<<len(firsts)-1))
	g.index.find(&q)
	for place := range firsts {
		firsts[place] = q.first(place)
	}
}

// next is the first matching filter of a sublayer after a place, nil if there is
// none.
func (g *group) next(in *fwps.Incoming, place int, after cursor) *filter {
	var q search
	q.begin(in, 1<<place)
	q.after = after
	g.index.find(&q)
	return q.first(place)
}

// combine is ARB-05: the state so far and the decision of one more sublayer.
func (r *run) combine(a *answer) {
	d, s := r.d, a.step
	s.Hard = a.hard
	switch {
	case !r.decided || d.Rights&fwps.RightActionWrite != 0:
		r.decided = true
	case d.Action == fwp.ActionPermit && a.veto:
		s.Veto, s.Rule, a.hard, d.Vetoed = true, "ARB-06", true, true
	default:
		if s.Why == "" {
			s.Why = "a heavier sublayer decided hard"
		}
		s.Rule = "ARB-07"
		return
	}
	d.Action, d.Deciding, d.Absorbed, d.Rights = a.action, len(d.Steps)-1, a.absorb, fwps.RightActionWrite
	if a.hard {
		d.Rights = 0
	}
}

// sublayer asks the matching filters of a sublayer, from the first on, until one
// decides (ARB-01), and adds that to the outcome.
func (r *run) sublayer(g *group, place int, f *filter) {
	for ; f != nil; f = g.next(r.in, place, cursor{f.weight(), f.ID, true}) {
		a := answer{step: r.d.PushStep()}
		if f.callsOut() {
			r.call(f, &a)
		} else {
			r.matched(g.subs[place], f, a.step)
			a.action, a.hard = fwp.Action(f.action), fwp.Action(f.action) == fwp.ActionBlock || f.hard // ARB-03, ARB-04
		}
		if r.again {
			return
		}
		if a.action != 0 {
			r.combine(&a)
			return
		}
	}
}

// matched notes that a filter matched which calls nobody out.
func (r *run) matched(sub fwpm.SublayerID, f *filter, s *fwps.Step) {
	s.Layer, s.Sublayer, s.Filter, s.Name, s.Callout, s.Action = r.in.Layer, sub, f.ID, f.name, "", fwp.Action(f.action)
	s.Redirected, s.Hard, s.Veto, s.Absorb, s.Rule, s.Why = false, false, false, false, "ARB-01", ""
	s.Reauth = r.in.Flags&fwp.FlagIsReauthorize != 0
}

// refuse ends the classification as a failure.
func (r *run) refuse(rule, why string) {
	d := r.d
	d.Steps = append(d.Steps, fwps.Step{Layer: r.in.Layer, Action: fwp.ActionBlock, Hard: true, Rule: rule, Why: why})
	d.Action, d.Rights, d.Deciding, d.Faulted, d.Absorbed = fwp.ActionBlock, 0, len(d.Steps)-1, true, false
}
