package arbitrate

import (
	"context"
	"fmt"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
)

// An answer is what one sublayer decided.
type answer struct {
	action fwp.Action // zero: no decision
	hard   bool
	veto   bool
	step   int
}

// Classify asks every sublayer, the heaviest first, and leaves the outcome in
// d (ARB-01..ARB-10, spec 8.5). It has no error result: a failure is a block.
func (p *Program) Classify(ctx context.Context, in *fwps.Incoming, d *fwps.Decision) {
	d.Reset()
	d.Action, d.Rights = fwp.ActionPermit, fwps.RightActionWrite // ARB-09
	if in.Layer.IsConnectRedirect() {
		d.PushVersion().Remote = in.Remote
	}
	if int(in.Layer) >= len(p.layers) {
		return
	}
	decided := false
	for i := range p.layers[in.Layer] {
		a := p.layers[in.Layer][i].ask(ctx, in, d)
		if a.action != 0 {
			combine(d, a, &decided)
		}
	}
}

// combine is ARB-05: the state so far and the decision of one more sublayer.
func combine(d *fwps.Decision, a answer, decided *bool) {
	s := &d.Steps[a.step]
	s.Hard = a.hard
	switch {
	case !*decided || d.Rights&fwps.RightActionWrite != 0:
		*decided = true
	case d.Action == fwp.ActionPermit && a.veto:
		s.Veto, s.Rule, a.hard = true, "ARB-06", true
	default:
		if s.Why == "" {
			s.Why = "a heavier sublayer decided hard"
		}
		s.Rule = "ARB-07"
		return
	}
	d.Action, d.Deciding, d.Rights = a.action, a.step, fwps.RightActionWrite
	if a.hard {
		d.Rights = 0
	}
}

func (s *sublayer) ask(ctx context.Context, in *fwps.Incoming, d *fwps.Decision) answer {
	for i := range s.filters {
		f := &s.filters[i]
		if !f.matches(in) {
			continue
		}
		d.Steps = append(d.Steps, fwps.Step{Layer: in.Layer, Sublayer: s.id, Filter: f.ID, Name: f.Name, Callout: f.Callout, Rule: "ARB-01", Action: f.Action})
		a := answer{step: len(d.Steps) - 1}
		if f.Action.CallsOut() {
			f.call(ctx, in, d, &a)
		} else {
			a.action, a.hard = f.Action, f.Action == fwp.ActionBlock || f.ClearActionRight // ARB-03, ARB-04
		}
		if a.action != 0 {
			return a
		}
	}
	return answer{}
}

// call asks the filter's callout. a stays without action when it continues.
func (f *filter) call(ctx context.Context, in *fwps.Incoming, d *fwps.Decision, a *answer) {
	step := &d.Steps[a.step]
	r := f.slot.current.Load()
	if r == nil {
		f.missing(step, a)
		return
	}
	c, v := d.Scratch()
	*c = fwps.Call{In: in, Filter: f.Filter, Connect: d.Connect, Rights: d.Rights, RedirectHandle: r.handle}
	c.State, c.Hop = in.Records.State(r.handle)
	v.Reset()
	if err := safely(ctx, r.callout, c, v); err != nil {
		step.Action, step.Rule, step.Why = fwp.ActionBlock, "AMB-42", err.Error()
		a.action, a.hard, a.veto, d.Faulted = fwp.ActionBlock, true, d.Rights&fwps.RightActionWrite == 0, true
		return
	}
	step.Action, step.Why = v.Action, v.Reason
	writable := d.Rights&fwps.RightActionWrite != 0
	if f.Action == fwp.ActionCalloutInspection { // CO-CLS-09
		if v.Action != fwp.ActionContinue {
			step.Action, step.Rule, step.Why = fwp.ActionContinue, "CO-CLS-09", "an inspection callout may not decide"
		}
		return
	}
	if v.Redirect {
		f.redirect(in, d, v, r.handle, writable, step)
		if d.Faulted {
			a.action, a.hard = fwp.ActionBlock, true
			return
		}
	}
	switch {
	case v.Action == fwp.ActionContinue:
	case v.Action == fwp.ActionPermit && !writable:
		step.Rule, step.Why = "CO-CLS-06", "a heavier sublayer decided hard"
	default:
		a.action, a.veto = v.Action, v.Action == fwp.ActionBlock && !writable
		a.hard = v.ClearActionRight || v.Action == fwp.ActionPermit && f.ClearActionRight // CO-CLS-07
	}
}

// missing is CO-REG-04.
func (f *filter) missing(step *fwps.Step, a *answer) {
	step.Rule, step.Why = "CO-REG-04", "the callout is not registered"
	switch {
	case f.Action == fwp.ActionCalloutInspection:
		step.Action = fwp.ActionContinue
	case f.PermitIfCalloutUnregistered:
		step.Action, a.action = fwp.ActionPermit, fwp.ActionPermit
	default:
		step.Action, a.action, a.hard = fwp.ActionBlock, fwp.ActionBlock, true
	}
}

func (f *filter) redirect(in *fwps.Incoming, d *fwps.Decision, v *fwps.Verdict, h redirect.Handle, writable bool, step *fwps.Step) {
	switch {
	case !in.Layer.IsConnectRedirect():
		step.Rule, step.Why = "CH-02", "only CONNECT_REDIRECT has a request to change"
		return
	case !writable:
		step.Rule, step.Why = "CH-15", "a heavier sublayer decided hard: the request may not be changed"
		return
	}
	r := d.PushVersion()
	if r == nil {
		step.Action, step.Rule, step.Why, d.Faulted = fwp.ActionBlock, "AMB-29", "the request was changed too often", true
		return
	}
	r.Remote, r.LocalRedirectTargetPID, r.ModifierFilterID, r.ModifierCallout = v.To, v.TargetPID, f.ID, f.Callout
	if !v.NoHandle {
		r.LocalRedirectHandle = h
	}
	r.Record = append(r.Record, v.Record...)
	r.LocalRedirectContext = append(r.LocalRedirectContext, v.Context...)
}

// safely turns everything that can go wrong with a callout into an error.
func safely(ctx context.Context, c fwps.Callout, call *fwps.Call, v *fwps.Verdict) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("callout panicked: %v", r)
		}
	}()
	if err := c.Classify(ctx, call, v); err != nil {
		return err
	}
	if v.Action != fwp.ActionPermit && v.Action != fwp.ActionBlock && v.Action != fwp.ActionContinue {
		return fmt.Errorf("callout gave no valid action: %v", v.Action)
	}
	if len(v.Record) > redirect.MaxBlob || len(v.Context) > redirect.MaxBlob {
		return fmt.Errorf("record or context is over %d bytes", redirect.MaxBlob)
	}
	return nil
}
