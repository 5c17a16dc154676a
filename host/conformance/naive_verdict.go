package conformance

import (
	"fmt"
	"slices"
	"strings"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
)

func (q *question) call(f *fwpm.Filter, slot *arbitrate.Slot, h redirect.Handle, st state) (_ state, veto, decided bool) {
	s := &q.d.Steps[st.step]
	writable := q.d.Rights&fwps.RightActionWrite != 0
	v, err := q.answer(f, slot, h)
	if q.again != nil {
		return st, false, false
	}
	if err == nil && !slices.Contains([]fwp.Action{fwp.ActionPermit, fwp.ActionBlock, fwp.ActionContinue, fwp.ActionNone}, v.Action) {
		err = fmt.Errorf("callout gave no valid action: %v", v.Action)
	}
	if err != nil {
		return q.fail(s, st, writable, "AMB-42", err.Error())
	}
	s.Action, s.Why = v.Action, v.Reason
	if f.Action == fwp.ActionCalloutInspection {
		q.inspected(s, v)
		return st, false, false
	}
	if v.Redirect && q.d.Connect == nil && q.d.Bind == nil {
		return q.fail(s, st, writable, "CH-02", "it redirects, and "+q.in.Layer.String()+" has no request to change: ALE_CONNECT_REDIRECT and ALE_BIND_REDIRECT have")
	}
	late, ok := q.request(s, f, h, v, writable)
	if !ok {
		return q.fail(s, st, writable, "AMB-29", fwps.ChangedTooOften)
	}
	if late {
		q.wantsToHear(s, f)
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

// fail is what a callout that failed has decided.
func (q *question) fail(s *fwps.Step, st state, writable bool, rule, why string) (_ state, veto, decided bool) {
	q.d.Discard()
	s.Rule, s.Why = rule, why
	if q.n.Options().FaultContinues {
		s.Action = fwp.ActionContinue
		return st, false, false
	}
	s.Action, s.Hard, q.d.Faulted = fwp.ActionBlock, true, true
	st.action, st.hard = fwp.ActionBlock, true
	return st, !writable, true
}

// inspected forgets what a callout said that may not decide.
func (q *question) inspected(s *fwps.Step, v *fwps.Verdict) {
	changed, _ := q.d.Applied()
	q.d.Discard()
	if v.Action == fwp.ActionPermit || v.Action == fwp.ActionBlock || v.Redirect || changed {
		s.Action, s.Rule, s.Why = fwp.ActionContinue, "CO-CLS-09", "an inspection callout may not decide"
	}
}

// request changes the request as the callout said, and reports whether it wants to hear of
// later changes. There is an end to changes: then it is not ok.
func (q *question) request(s *fwps.Step, f *fwpm.Filter, h redirect.Handle, v *fwps.Verdict, writable bool) (late, ok bool) {
	d := q.d
	changed, late := d.Applied()
	if changed {
		d.Stamp(f, "")
	}
	if strings.HasPrefix(d.Misuse(), "AMB-29") {
		return false, false
	}
	s.Action = v.Action // Applied takes back a block that acquire left (AMB-22).
	switch {
	case !v.Redirect:
	case !writable:
		s.Rule, s.Why = "CH-15", "a heavier sublayer decided hard: the request may not be changed"
	case !d.Push(v, h, f, ""):
		return false, false
	default:
		changed, late = true, v.ReauthorizeIfModifiedByOthers
	}
	if m := d.Misuse(); m != "" {
		s.Rule, s.Why, _ = strings.Cut(m, ": ")
	}
	if changed {
		s.Redirected = true
	}
	return late, true
}

// wantsToHear notes a filter whose callout hears of changes by others.
func (q *question) wantsToHear(s *fwps.Step, f *fwpm.Filter) {
	switch {
	case slices.ContainsFunc(q.asked, func(i interest) bool { return i.filter == f }):
	case len(q.asked) < arbitrate.MaxRounds:
		q.asked = append(q.asked, interest{f, q.d.Versions()})
	default:
		s.Rule, s.Why = "AMB-29", "too many callouts want to hear of changes by others: this one will not"
	}
}
