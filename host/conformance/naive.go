package conformance

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
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
		q.late()
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

// matches is BFE-CND-01: fields AND, conditions on one field OR.
func (n *naive) matches(f *fwpm.Filter, in *fwps.Incoming) bool {
	byField := map[fwpm.ConditionID]bool{}
	for i := range f.Conditions {
		c := &f.Conditions[i]
		byField[c.Field] = byField[c.Field] || n.holds(c, in.Field(c.Field))
	}
	for _, held := range byField {
		if !held {
			return false
		}
	}
	return true
}

func (n *naive) holds(c *fwpm.Condition, v fwp.Value) bool {
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
	case fwp.MatchPrefix:
		return n.prefix(v.Text, c.Value.Text)
	case fwp.MatchNotPrefix:
		return !n.prefix(v.Text, c.Value.Text)
	}
	return false
}

// prefix tests the end of the value, unless the option says so (AMB-34).
func (n *naive) prefix(value, part string) bool {
	if n.Options().PrefixMatchesStart {
		return strings.HasPrefix(value, part)
	}
	return strings.HasSuffix(value, part)
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
	filter  *fwpm.Filter
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
	slot := q.n.Slot(f.Callout)
	c, h := slot.Callout()
	if c == nil {
		s.Rule, s.Why = "CO-REG-04", "the callout is not registered"
		switch {
		case f.Action == fwp.ActionCalloutInspection:
			s.Action = fwp.ActionContinue
			return st, false, false
		case f.PermitIfCalloutUnregistered:
			s.Action, st.action, st.hard = fwp.ActionPermit, fwp.ActionPermit, f.ClearActionRight
		default:
			s.Action, st.action, st.hard = fwp.ActionBlock, fwp.ActionBlock, true
		}
		return st, false, true
	}
	return q.call(f, slot, h, st)
}

func (q *question) call(f *fwpm.Filter, slot *arbitrate.Slot, h redirect.Handle, st state) (_ state, veto, decided bool) {
	d := q.d
	s := &d.Steps[st.step]
	writable := d.Rights&fwps.RightActionWrite != 0
	v, err := q.answer(f, slot, h)
	if q.again != nil {
		return st, false, false
	}
	if err == nil && !slices.Contains([]fwp.Action{fwp.ActionPermit, fwp.ActionBlock, fwp.ActionContinue, fwp.ActionNone}, v.Action) {
		err = fmt.Errorf("callout gave no valid action: %v", v.Action)
	}
	fail := func(rule, why string) (state, bool, bool) {
		d.Discard()
		s.Rule, s.Why = rule, why
		if q.n.Options().FaultContinues {
			s.Action = fwp.ActionContinue
			return st, false, false
		}
		s.Action, s.Hard, d.Faulted = fwp.ActionBlock, true, true
		st.action, st.hard = fwp.ActionBlock, true
		return st, !writable, true
	}
	if err != nil {
		return fail("AMB-42", err.Error())
	}
	s.Action, s.Why = v.Action, v.Reason
	if f.Action == fwp.ActionCalloutInspection {
		changed, _ := d.Applied()
		d.Discard()
		if v.Action == fwp.ActionPermit || v.Action == fwp.ActionBlock || v.Redirect || changed {
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
	if late && !slices.ContainsFunc(q.asked, func(i interest) bool { return i.filter == f }) {
		if len(q.asked) < arbitrate.MaxRounds {
			q.asked = append(q.asked, interest{f, d.Versions()})
		} else {
			s.Rule, s.Why = "AMB-29", "too many callouts want to hear of changes by others: this one will not"
		}
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
	st.hard = v.ClearActionRight || f.ClearActionRight
	return st, v.Action == fwp.ActionBlock && !writable, true
}

// answer asks the callout.
func (q *question) answer(f *fwpm.Filter, slot *arbitrate.Slot, h redirect.Handle) (v *fwps.Verdict, err error) {
	c, _ := slot.Callout()
	if _, again := c.(fwps.Reclassifier); again {
		q.d.Reclassify = true
	}
	call, v := q.d.Question(q.in, f, slot.Holds(), slot.Flows())
	call.RedirectHandle = h
	call.State, call.Hop = q.in.Records.State(h)
	func() {
		if q.in.Flow != nil {
			if call.FlowContext = q.in.Flow.Enter(q.in.Layer, f.Callout); call.FlowContext != 0 {
				defer q.in.Flow.Leave()
			}
		}
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("callout panicked: %v", r)
			}
		}()
		err = c.Classify(q.ctx, call, v)
	}()
	if p, op := q.d.Pended(); p != nil || op != nil {
		defer slot.Holds().Add(-1)
	}
	if err != nil {
		return v, err
	}
	return q.wait(v, q.n.Options().PendTimeout)
}

// wait is what the engine does when a callout pends.
func (q *question) wait(v *fwps.Verdict, limit time.Duration) (*fwps.Verdict, error) {
	ctx := q.ctx
	if limit > 0 {
		timed, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the callout held the classification longer than %s (AMB-43)", limit))
		defer cancel()
		ctx = timed
	}
	ended := func() error {
		if q.ctx.Err() != nil {
			return fmt.Errorf("the operation ended while the callout held it (SC-79): %w", context.Cause(q.ctx))
		}
		return context.Cause(ctx)
	}
	p, op := q.d.Pended()
	switch {
	case p != nil:
		select {
		case final := <-p.Done():
			q.in = q.d.Reauthorize(q.in, 0)
			if final == nil {
				q.again = q.in
				return v, nil
			}
			return final, nil
		case <-ctx.Done():
			return v, ended()
		}
	case op != nil:
		select {
		case <-op.Done():
		case <-ctx.Done():
			return v, ended()
		}
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
func (q *question) late() {
	for range arbitrate.MaxRounds {
		at := slices.IndexFunc(q.asked, func(i interest) bool { return i.version < q.d.Versions() })
		if at < 0 || q.d.Versions() == fwps.MaxVersions {
			return
		}
		q.in = q.d.Reauthorize(q.in, 0)
		f := q.asked[at].filter
		st, _, _ := q.ask(f, sublayerOf(f))
		q.asked[at].version = q.d.Versions()
		switch {
		case q.again != nil:
			return
		case q.d.Faulted:
			publish(q.d, st)
			return
		}
	}
}
