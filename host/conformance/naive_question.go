package conformance

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
)

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
	limit := q.n.Options().PendTimeout
	if limit == 0 && q.in.Layer.ForFamily(false) == fwpm.LayerALEEndpointClosureV4 {
		limit = 10 * time.Second
	}
	return q.wait(v, limit)
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

// late asks those again whose request was changed by others (CH-05). A block counts.
func (q *question) late(st state) {
	for range arbitrate.MaxRounds {
		at := slices.IndexFunc(q.asked, func(i interest) bool { return i.version < q.d.Versions() })
		if at < 0 || q.d.Versions() == fwps.MaxVersions {
			return
		}
		q.in = q.d.Reauthorize(q.in, 0)
		f := q.asked[at].filter
		new, veto, decided := q.ask(f, sublayerOf(f))
		q.asked[at].version = q.d.Versions()
		switch {
		case q.again != nil:
			return
		case q.d.Faulted:
			publish(q.d, new)
			return
		case decided && new.action == fwp.ActionBlock:
			st = combine(q.d, st, new, veto)
			publish(q.d, st)
		}
	}
}
