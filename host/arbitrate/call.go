package arbitrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
)

// call asks the filter's callout. a stays without action when it continues.
func (r *run) call(f *filter, a *answer) {
	*a.step = *f.extra.step
	a.step.Reauth = r.in.Flags&fwp.FlagIsReauthorize != 0
	slot := f.calls().slot
	reg := slot.current.Load()
	if reg == nil {
		r.note(slot, 0, true, fwps.Moment{})
		r.missing(f, a)
		return
	}
	d, in := r.d, r.in
	if reg.reclassify {
		d.Reclassify = true
	}
	c, v := d.Question(in, f.Filter, &slot.pended, &slot.flows)
	c.RedirectHandle = reg.handle
	if len(in.Records) > 0 {
		c.State, c.Hop = in.Records.State(reg.handle)
	}
	inFlow := false
	if in.Flow != nil {
		c.FlowContext = in.Flow.Enter(in.Layer, f.Callout)
		inFlow = c.FlowContext != 0
	}
	err := safely(r.ctx, reg.callout, c, v)
	if v.Cacheable {
		r.p.opts.Cache.mark(in.Layer)
		r.note(slot, reg.number, !d.Singular(), v.Since)
	} else {
		r.called, r.shared = true, nil
	}
	if inFlow {
		in.Flow.Leave()
	}
	if d.Acted() {
		if p, op := d.Pended(); p != nil || op != nil {
			if v, err = r.held(f, v, err); r.again {
				return
			}
		}
	}
	if err == nil && !sound(v) {
		err = wrong(v)
	}
	if err != nil {
		r.fault(a, "AMB-42", err.Error())
		return
	}
	r.heed(f, reg.handle, v, a)
}

// heed carries a callout's answer into the decision.
func (r *run) heed(f *filter, h redirect.Handle, v *fwps.Verdict, a *answer) {
	step := a.step
	step.Action, step.Why = v.Action, v.Reason
	writable := r.d.Rights&fwps.RightActionWrite != 0
	if f.Action == fwp.ActionCalloutInspection { // CO-CLS-09
		changed, _ := r.d.Applied()
		r.d.Discard()
		if v.Action == fwp.ActionPermit || v.Action == fwp.ActionBlock || v.Redirect || changed {
			step.Action, step.Rule, step.Why = fwp.ActionContinue, "CO-CLS-09", "an inspection callout may not decide"
		}
		return
	}
	if (v.Redirect || r.d.Acted()) && !r.modify(f, h, v, a, writable) {
		return
	}
	action := v.Action
	step.Action, step.Absorb = action, v.Absorb && action == fwp.ActionBlock
	switch {
	case action == fwp.ActionContinue || action == fwp.ActionNone:
	case action == fwp.ActionPermit && !writable:
		step.Rule, step.Why = "CO-CLS-06", "a heavier sublayer decided hard"
	default:
		a.action, a.veto, a.absorb = action, action == fwp.ActionBlock && !writable, step.Absorb
		a.hard = v.ClearActionRight || f.ClearActionRight // CO-CLS-07, ARB-04
	}
}

// modify makes the version of the request that the callout asked for. It returns
// false when that failed: who wants a connection elsewhere does not want it as it is.
func (r *run) modify(f *filter, h redirect.Handle, v *fwps.Verdict, a *answer, writable bool) bool {
	d := r.d
	step := a.step
	changed, late := d.Applied()
	why := d.Misuse()
	if why == "AMB-29: "+fwps.ChangedTooOften {
		r.fault(a, "AMB-29", fwps.ChangedTooOften)
		return false
	}
	if changed {
		d.Stamp(f.Filter, f.calls().provider)
	}
	if v.Redirect {
		switch {
		case d.Connect == nil && d.Bind == nil:
			r.fault(a, "CH-02", "it redirects, and "+r.in.Layer.String()+" has no request to change: ALE_CONNECT_REDIRECT and ALE_BIND_REDIRECT have")
			return false
		case !writable:
			step.Rule, step.Why = "CH-15", "a heavier sublayer decided hard: the request may not be changed"
		default:
			if !d.Push(v, h, f.Filter, f.calls().provider) {
				r.fault(a, "AMB-29", fwps.ChangedTooOften)
				return false
			}
			changed, late = true, v.ReauthorizeIfModifiedByOthers
		}
	}
	if why != "" {
		step.Rule, step.Why = why[:6], why[8:]
	}
	if changed {
		step.Redirected = true
	}
	if late && !r.hears(f) {
		step.Rule, step.Why = "AMB-29", "too many callouts want to hear of changes by others: this one will not"
	}
	return true
}

const closureLimit = 10 * time.Second

// held waits for what the callout pends. The rest of the layer is asked with
// IS_REAUTHORIZE then (ALE-LAY-13).
func (r *run) held(f *filter, v *fwps.Verdict, err error) (*fwps.Verdict, error) {
	p, op := r.d.Pended()
	defer f.calls().slot.pended.Add(-1)
	if err != nil {
		return v, err
	}
	var timeout <-chan time.Time
	limit := r.p.opts.PendTimeout
	if l := r.in.Layer; limit == 0 && (l == fwpm.LayerALEEndpointClosureV4 || l == fwpm.LayerALEEndpointClosureV6) {
		limit = closureLimit
	}
	if limit > 0 {
		t := time.NewTimer(limit)
		defer t.Stop()
		timeout = t.C
	}
	var classify <-chan *fwps.Verdict
	var operation <-chan struct{}
	if p != nil {
		classify = p.Done()
	} else {
		operation = op.Done()
	}
	select {
	case final := <-classify:
		if final == nil {
			r.indicateAgain(0)
			return v, nil
		}
		r.reauthorized(0)
		return final, nil
	case <-operation:
		if v.Action != fwp.ActionBlock || !v.Absorb {
			return v, errors.New("the callout pended the operation but did not answer block with absorb (CH-14)")
		}
		r.indicateAgain(fwp.ReasonClassifyCompletion)
		return v, nil
	case <-timeout:
		return v, fmt.Errorf("the callout held the classification longer than %s (AMB-43)", limit)
	case <-r.ctx.Done():
		return v, fmt.Errorf("the operation ended while the callout held it (SC-79): %w", context.Cause(r.ctx))
	}
}

// indicateAgain begins the layer again. At AUTH_RECV_ACCEPT it is the injected
// clone that is asked about, not a reauthorization (CH-14).
func (r *run) indicateAgain(why fwp.ReauthorizeReason) {
	r.again, r.match, r.fresh = true, nil, nil
	if why != 0 && r.in.Inbound {
		return
	}
	r.reauthorized(why)
}

// reauthorized makes what follows a reauthorization, of which nothing is known or kept.
func (r *run) reauthorized(why fwp.ReauthorizeReason) {
	r.in, r.match, r.fresh = r.d.Reauthorize(r.in, why), nil, nil
}

// missing is CO-REG-04.
func (r *run) missing(f *filter, a *answer) {
	step := a.step
	step.Rule, step.Why = "CO-REG-04", "the callout is not registered"
	switch {
	case f.Action == fwp.ActionCalloutInspection:
		step.Action = fwp.ActionContinue
	case f.PermitIfCalloutUnregistered:
		step.Action, a.action, a.hard = fwp.ActionPermit, fwp.ActionPermit, f.ClearActionRight
	default:
		step.Action, a.action, a.hard = fwp.ActionBlock, fwp.ActionBlock, true
	}
}

// fault is a callout that failed: a hard block, or no decision where the options
// say so (AMB-42). What it changed is discarded.
func (r *run) fault(a *answer, rule, why string) {
	r.shared = nil
	r.d.Discard()
	step := a.step
	step.Rule, step.Why = rule, why
	if r.p.opts.FaultContinues {
		step.Action = fwp.ActionContinue
		return
	}
	step.Action, step.Hard, r.d.Faulted = fwp.ActionBlock, true, true
	a.action, a.hard, a.veto = fwp.ActionBlock, true, r.d.Rights&fwps.RightActionWrite == 0
}

// safely turns a panic of a callout into an error.
func safely(ctx context.Context, c fwps.Callout, call *fwps.Call, v *fwps.Verdict) (err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		if r := recover(); r != nil {
			err = fmt.Errorf("callout panicked: %v", r)
		}
	}()
	err = c.Classify(ctx, call, v)
	returned = true
	return err
}

// sound reports whether an answer is one.
func sound(v *fwps.Verdict) bool {
	switch v.Action {
	case fwp.ActionPermit, fwp.ActionBlock, fwp.ActionContinue, fwp.ActionNone:
		return max(len(v.Record), len(v.Context)) <= redirect.MaxBlob
	}
	return false
}

// wrong is what there is about an answer that is not sound.
func wrong(v *fwps.Verdict) error {
	if max(len(v.Record), len(v.Context)) > redirect.MaxBlob {
		return fmt.Errorf("record or context is over %d bytes", redirect.MaxBlob)
	}
	return fmt.Errorf("callout gave no valid action: %v", v.Action)
}
