package arbitrate

import (
	"context"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// MaxRounds bounds how often one classification is begun again or a callout asked
// again because another one changed the request (AMB-29).
const MaxRounds = 8

// A run is one classification under way.
type run struct {
	p   *Program
	ctx context.Context
	in  *fwps.Incoming
	d   *fwps.Decision
	// late are the filters whose callouts asked to hear of later changes of the
	// request, seen the version each of them knows. Arrays, so that a run lives on
	// the stack.
	late  [MaxRounds]*filter
	seen  [MaxRounds]int
	nlate int
	// again says that the layer is to be asked from the start.
	again bool
	// known is what to do with the outcome, asked the callouts that had a part in it.
	known  question
	asked  [maxAsked]asked
	nasked int
}

// An answer is what one sublayer decided.
type answer struct {
	action fwp.Action // zero: no decision
	hard   bool
	veto   bool
	absorb bool
	step   int
}

// Classify asks every sublayer, the heaviest first, and leaves the outcome in
// d (ARB-01..ARB-10, spec 8.5). It has no error result: a failure is a block. It
// waits while a callout pends, and no longer than ctx.
func (p *Program) Classify(ctx context.Context, in *fwps.Incoming, d *fwps.Decision) {
	var known question
	if known.take(p, in, d) {
		return
	}
	p.ask(ctx, in, d, known)
}

// ask is Classify of what is not known.
func (p *Program) ask(ctx context.Context, in *fwps.Incoming, d *fwps.Decision, known question) {
	var r run
	r.p, r.ctx, r.in, r.d, r.known = p, ctx, in, d, known
	d.Reset(in)
	for round := 1; ; round++ {
		r.pass()
		if !r.again && !d.Faulted {
			r.reauthorize()
		}
		if !r.again {
			r.keep(in)
			return
		}
		if round == MaxRounds {
			r.refuse("AMB-29", "the classification was begun again too often")
			return
		}
		steps := d.Steps
		d.Reset(in)
		d.Steps, r.nlate, r.again = steps, 0, false
	}
}

// pass asks the sublayers once.
func (r *run) pass() {
	l := r.p.layer(r.in.Layer)
	if l == nil {
		return
	}
	decided := false
	for _, g := range l.groups {
		if f := g.first(); f != nil {
			r.settle(g, int(f.place), f, &decided)
		} else {
			r.each(g, &decided)
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
	if b := &g.index.root; b.node == nil && b.subs&(b.subs-1) == 0 && b.n > 0 && b.first.has == 0 {
		return b.first.f
	}
	return nil
}

// each asks the sublayers of a group.
func (r *run) each(g *group, decided *bool) {
	in := r.in
	var q search
	q.begin(in, uint8(1<<len(g.subs)-1))
	g.index.find(&q)
	for place := range g.subs {
		first := q.best[place]
		if r.in != in { // A callout pended: what follows is a reauthorization.
			first = g.next(r.in, place, cursor{})
		}
		r.settle(g, place, first, decided)
		if r.again {
			return
		}
	}
}

// settle asks a sublayer and adds what it decides.
func (r *run) settle(g *group, place int, first *filter, decided *bool) {
	var a answer
	r.sublayer(g, place, first, &a)
	if !r.again && a.action != 0 {
		r.combine(&a, decided)
	}
}

// next is the first matching filter of a sublayer after a place, nil if there is
// none.
func (g *group) next(in *fwps.Incoming, place int, after cursor) *filter {
	var q search
	q.begin(in, 1<<place)
	q.after = after
	g.index.find(&q)
	return q.best[place]
}

// combine is ARB-05: the state so far and the decision of one more sublayer.
func (r *run) combine(a *answer, decided *bool) {
	d := r.d
	s := &d.Steps[a.step]
	s.Hard = a.hard
	switch {
	case !*decided || d.Rights&fwps.RightActionWrite != 0:
		*decided = true
	case d.Action == fwp.ActionPermit && a.veto:
		s.Veto, s.Rule, a.hard, d.Vetoed = true, "ARB-06", true, true
	default:
		if s.Why == "" {
			s.Why = "a heavier sublayer decided hard"
		}
		s.Rule = "ARB-07"
		return
	}
	d.Action, d.Deciding, d.Absorbed, d.Rights = a.action, a.step, a.absorb, fwps.RightActionWrite
	if a.hard {
		d.Rights = 0
	}
}

// sublayer asks the matching filters of a sublayer, from the first on, until one
// decides (ARB-01). a is empty.
func (r *run) sublayer(g *group, place int, f *filter, a *answer) {
	for ; f != nil; f = g.next(r.in, place, cursor{f.weight(), f.ID, true}) {
		a.step = r.step(g.subs[place], f)
		if f.callsOut() {
			r.call(f, a)
		} else {
			a.action, a.hard = fwp.Action(f.action), fwp.Action(f.action) == fwp.ActionBlock || f.hard // ARB-03, ARB-04
		}
		if a.action != 0 || r.again {
			return
		}
	}
}

func (r *run) step(s fwpm.SublayerID, f *filter) int {
	step := r.d.PushStep(r.in.Layer, s, f.ID, f.name, fwp.Action(f.action))
	if f.callsOut() {
		step.Callout = f.Callout
	}
	step.Reauth = r.in.Flags&fwp.FlagIsReauthorize != 0
	return len(r.d.Steps) - 1
}

// refuse ends the classification as a failure.
func (r *run) refuse(rule, why string) {
	d := r.d
	d.Steps = append(d.Steps, fwps.Step{Layer: r.in.Layer, Action: fwp.ActionBlock, Hard: true, Rule: rule, Why: why})
	d.Action, d.Rights, d.Deciding, d.Faulted, d.Absorbed = fwp.ActionBlock, 0, len(d.Steps)-1, true, false
}

// reauthorize asks callouts again that wanted to hear of changes by others
// (CH-05, SC-73). They may change the request again, so there is a cap, after
// which the current data counts (AMB-29).
func (r *run) reauthorize() {
	d := r.d
	for range MaxRounds {
		at := r.outdated()
		if at < 0 || d.Versions() == fwps.MaxVersions {
			return
		}
		f := r.late[at]
		r.in = d.Reauthorize(r.in, 0)
		a := answer{step: r.step(sublayerOf(f.Filter), f)}
		r.call(f, &a)
		if r.again {
			return
		}
		r.seen[at] = d.Versions()
		if d.Faulted {
			d.Action, d.Rights, d.Deciding, d.Absorbed = fwp.ActionBlock, 0, a.step, false
			return
		}
	}
}

// outdated is the first of the callouts whose request was changed by another one
// since, -1 if none is.
func (r *run) outdated() int {
	for i := range r.late[:r.nlate] {
		if r.seen[i] < r.d.Versions() {
			return i
		}
	}
	return -1
}
