package conformance

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
)

// Naive wraps the engine with a second arbiter that is slow and obvious: it sorts
// the policy for each question, compares values as values and has the table of
// ARB-05 as a table. It shares no code with the engine's.
func Naive(e *host.Engine, callouts func(fwpm.CalloutID) (fwps.Callout, redirect.Handle)) fwps.Classifier {
	return &naive{Engine: e, callouts: callouts}
}

type naive struct {
	*host.Engine
	callouts func(fwpm.CalloutID) (fwps.Callout, redirect.Handle)
}

// state is what goes from one sublayer to the next.
type state struct {
	action fwp.Action // zero: none yet
	hard   bool
	step   int
}

func (n *naive) Classify(ctx context.Context, in *fwps.Incoming, d *fwps.Decision) {
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
	d.Action, d.Rights, d.Deciding, d.Faulted = fwp.ActionBlock, 0, len(d.Steps)-1, true
}

// once asks every sublayer; it returns what to ask about again, nil if all is done.
func (n *naive) once(ctx context.Context, in *fwps.Incoming, d *fwps.Decision) *fwps.Incoming {
	policy := n.Policy()
	q := &question{n: n, ctx: ctx, in: in, d: d}
	st := state{step: -1}
	for _, sub := range sublayers(policy) {
		for _, f := range filtersOf(policy, sub.ID, in.Layer) {
			if !matches(&f, q.in) {
				continue
			}
			new, veto, decided := q.ask(&f, sub.ID)
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
		q.late(policy)
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
	return subs
}

func filtersOf(p *fwpm.Policy, sub fwpm.SublayerID, l fwpm.LayerID) []fwpm.Filter {
	var out []fwpm.Filter
	for _, f := range p.Filters {
		if f.Sublayer == "" {
			f.Sublayer = fwpm.SublayerUniversal
		}
		if f.Layer == l && f.Sublayer == sub {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b fwpm.Filter) int {
		wa, _ := arbitrate.EffectiveWeight(&a)
		wb, _ := arbitrate.EffectiveWeight(&b)
		return cmp.Or(cmp.Compare(wb, wa), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// matches is BFE-CND-01: fields AND, conditions on one field OR.
func matches(f *fwpm.Filter, in *fwps.Incoming) bool {
	byField := map[fwpm.ConditionID]bool{}
	for i := range f.Conditions {
		c := &f.Conditions[i]
		byField[c.Field] = byField[c.Field] || holds(c, in.Field(c.Field))
	}
	for _, held := range byField {
		if !held {
			return false
		}
	}
	return true
}

func holds(c *fwpm.Condition, v fwp.Value) bool {
	if v.Type == fwp.Empty || c.Value.Type == fwp.Empty { // BFE-CND-06
		return v.Type == c.Value.Type && c.Match == fwp.MatchEqual
	}
	switch c.Match {
	case fwp.MatchEqual:
		return equal(c.Value, v)
	case fwp.MatchNotEqual:
		return !equal(c.Value, v)
	case fwp.MatchGreater:
		return v.Compare(c.Value) > 0
	case fwp.MatchLess:
		return v.Compare(c.Value) < 0
	case fwp.MatchGreaterOrEqual:
		return v.Compare(c.Value) >= 0
	case fwp.MatchLessOrEqual:
		return v.Compare(c.Value) <= 0
	case fwp.MatchRange:
		return v.Compare(c.Value.Range.Low) >= 0 && v.Compare(c.Value.Range.High) <= 0
	case fwp.MatchFlagsAllSet:
		return v.Uint&c.Value.Uint == c.Value.Uint
	case fwp.MatchFlagsAnySet:
		return v.Uint&c.Value.Uint != 0
	case fwp.MatchFlagsNoneSet:
		return v.Uint&c.Value.Uint == 0
	case fwp.MatchEqualCaseInsensitive:
		return strings.EqualFold(v.Text, c.Value.Text)
	case fwp.MatchPrefix: // the end of the value (AMB-34)
		return strings.HasSuffix(v.Text, c.Value.Text)
	case fwp.MatchNotPrefix:
		return !strings.HasSuffix(v.Text, c.Value.Text)
	}
	return false
}

func equal(want, v fwp.Value) bool {
	switch want.Type {
	case fwp.V4AddrMask:
		return fwp.Addr(want.Prefix.Addr()).Uint>>(32-want.Prefix.Bits()) == v.Uint>>(32-want.Prefix.Bits())
	case fwp.V6AddrMask:
		return want.Prefix.Contains(v.Addr)
	case fwp.ByteArray16:
		return v.Addr == want.Addr
	case fwp.SecurityDescriptorType:
		return want.SD.Grants(v.Token, fwp.ActrlMatchFilter)
	case fwp.ByteBlob, fwp.UnicodeString, fwp.SIDType, fwp.ByteArray6:
		return v.Text == want.Text
	}
	return v.Uint == want.Uint
}

// A question is one classification under way.
type question struct {
	n     *naive
	ctx   context.Context
	in    *fwps.Incoming
	d     *fwps.Decision
	again *fwps.Incoming
	asked []interest
}

// An interest is a callout that wants to hear of changes by others.
type interest struct {
	filter  fwpm.Filter
	version int
}

// ask carries one matching filter out.
func (q *question) ask(f *fwpm.Filter, sub fwpm.SublayerID) (st state, veto, decided bool) {
	d := q.d
	d.Steps = append(d.Steps, fwps.Step{Layer: q.in.Layer, Sublayer: sub, Filter: f.ID, Name: f.Name, Callout: f.Callout, Rule: "ARB-01",
		Action: f.Action, Reauth: q.in.Flags&fwp.FlagIsReauthorize != 0})
	st.step = len(d.Steps) - 1
	s := &d.Steps[st.step]
	if !f.Action.CallsOut() {
		st.action, st.hard = f.Action, f.Action == fwp.ActionBlock || f.ClearActionRight
		return st, false, true
	}
	c, h := q.n.callouts(f.Callout)
	if c == nil {
		s.Rule, s.Why = "CO-REG-04", "the callout is not registered"
		switch {
		case f.Action == fwp.ActionCalloutInspection:
			s.Action = fwp.ActionContinue
			return st, false, false
		case f.PermitIfCalloutUnregistered:
			s.Action, st.action = fwp.ActionPermit, fwp.ActionPermit
		default:
			s.Action, st.action, st.hard = fwp.ActionBlock, fwp.ActionBlock, true
		}
		return st, false, true
	}
	return q.call(f, c, h, st)
}

func (q *question) call(f *fwpm.Filter, c fwps.Callout, h redirect.Handle, st state) (_ state, veto, decided bool) {
	d := q.d
	s := &d.Steps[st.step]
	call, v := d.Question(q.in, f)
	call.RedirectHandle = h
	call.State, call.Hop = q.in.Records.State(h)
	if q.in.Flow != nil {
		call.FlowContext = q.in.Flow.Context(q.in.Layer, f.Callout)
	}
	writable := d.Rights&fwps.RightActionWrite != 0
	err := func() (err error) {
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("callout panicked: %v", r)
			}
		}()
		return c.Classify(q.ctx, call, v)
	}()
	if err == nil {
		v, err = q.wait(v)
	}
	if q.again != nil {
		return st, false, false
	}
	if err == nil && !slices.Contains([]fwp.Action{fwp.ActionPermit, fwp.ActionBlock, fwp.ActionContinue, fwp.ActionNone}, v.Action) {
		err = fmt.Errorf("callout gave no valid action: %v", v.Action)
	}
	fail := func(rule, why string) (state, bool, bool) {
		s.Action, s.Rule, s.Why, d.Faulted = fwp.ActionBlock, rule, why, true
		st.action, st.hard = fwp.ActionBlock, true
		return st, !writable, true
	}
	if err != nil {
		return fail("AMB-42", err.Error())
	}
	s.Action, s.Why = v.Action, v.Reason
	if f.Action == fwp.ActionCalloutInspection {
		if v.Action != fwp.ActionContinue || v.Redirect {
			s.Action, s.Rule, s.Why = fwp.ActionContinue, "CO-CLS-09", "an inspection callout may not decide"
		}
		return st, false, false
	}
	changed, late := d.Applied()
	s.Action = v.Action
	switch {
	case !v.Redirect:
	case d.Connect == nil && d.Bind == nil:
		s.Rule, s.Why = "CH-02", q.in.Layer.String()+" has no request to change"
	case !writable:
		s.Rule, s.Why = "CH-15", "a heavier sublayer decided hard: the request may not be changed"
	case !d.Push(v, h):
		return fail("AMB-29", "the request was changed too often")
	default:
		changed, late = true, v.ReauthorizeIfModifiedByOthers
	}
	if m := d.Misuse(); m != "" {
		s.Rule, s.Why, _ = strings.Cut(m, ": ")
	}
	if changed {
		s.Redirected = true
		d.Stamp(f, "")
	}
	if late && q.in.Flags&fwp.FlagIsReauthorize == 0 {
		q.asked = append(q.asked, interest{*f, d.Versions()})
	}
	s.Absorb = v.Absorb && v.Action == fwp.ActionBlock
	switch {
	case v.Action == fwp.ActionContinue || v.Action == fwp.ActionNone:
		return st, false, false
	case v.Action == fwp.ActionPermit && !writable:
		s.Rule, s.Why = "CO-CLS-06", "a heavier sublayer decided hard"
		return st, false, false
	}
	st.action = v.Action
	st.hard = v.ClearActionRight || v.Action == fwp.ActionPermit && f.ClearActionRight
	return st, v.Action == fwp.ActionBlock && !writable, true
}

// wait is what the engine does when a callout pends.
func (q *question) wait(v *fwps.Verdict) (*fwps.Verdict, error) {
	p, op := q.d.Pended()
	switch {
	case p != nil:
		final := <-p.Done()
		q.in = q.d.Reauthorize(q.in, 0)
		if final == nil {
			q.again = q.in
			return v, nil
		}
		return final, nil
	case op != nil:
		<-op.Done()
		if v.Action != fwp.ActionBlock || !v.Absorb {
			return v, fmt.Errorf("the callout pended the operation but did not answer block with absorb (CH-14)")
		}
		q.again = q.in
		if !q.in.Inbound {
			q.again = q.d.Reauthorize(q.in, fwp.ReasonClassifyCompletion)
		}
	}
	return v, nil
}

// late asks those again whose request was changed by others (CH-05).
func (q *question) late(policy *fwpm.Policy) {
	for range arbitrate.MaxRounds {
		at := slices.IndexFunc(q.asked, func(i interest) bool { return i.version < q.d.Versions() && modifier(q.d) != i.filter.ID })
		if at < 0 {
			return
		}
		q.in = q.d.Reauthorize(q.in, 0)
		f := q.asked[at].filter
		before := q.d.Versions()
		q.ask(&f, f.Sublayer)
		q.asked[at].version = max(before, q.d.Versions())
		if q.d.Faulted || q.again != nil {
			return
		}
	}
}

func modifier(d *fwps.Decision) fwpm.FilterID {
	if d.Connect != nil {
		return d.Connect.ModifierFilterID
	}
	if d.Bind != nil {
		return d.Bind.ModifierFilterID
	}
	return 0
}
