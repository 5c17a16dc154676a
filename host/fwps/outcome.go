package fwps

import (
	"slices"

	"github.com/calloutd/calloutd/host/fwp"
)

// An Outcome is what a classification left in its Decision, for another one whose
// inputs are equal. It shares no memory with the Decision and never changes.
type Outcome struct {
	action                                  fwp.Action
	rights                                  Rights
	steps                                   []Step
	deciding                                int
	faulted, vetoed, absorbed, reclassifies bool
	connects                                []ConnectRequest // what follows the original
	binds                                   []BindRequest
}

// Outcome is what d has, apart from what the request was before all callouts.
func (d *Decision) Outcome() Outcome {
	o := Outcome{action: d.Action, rights: d.Rights, steps: slices.Clone(d.Steps), deciding: d.Deciding,
		faulted: d.Faulted, vetoed: d.Vetoed, absorbed: d.Absorbed, reclassifies: d.Reclassify}
	switch {
	case d.Connect != nil:
		o.connects = slices.Clone(d.connects[1:d.nversion])
		for i := range o.connects {
			r := &o.connects[i]
			r.Previous = nil
			r.Record, r.LocalRedirectContext = slices.Clone(r.Record), slices.Clone(r.LocalRedirectContext)
		}
	case d.Bind != nil:
		o.binds = slices.Clone(d.binds[1:d.nversion])
		for i := range o.binds {
			o.binds[i].Previous = nil
		}
	}
	return o
}

// Take makes d what the classification of in would, whose outcome is o. d keeps its
// buffers.
func (d *Decision) Take(o *Outcome, in *Incoming) {
	d.Reset(in)
	d.Action, d.Rights, d.Deciding = o.action, o.rights, o.deciding
	d.Faulted, d.Vetoed, d.Absorbed, d.Reclassify = o.faulted, o.vetoed, o.absorbed, o.reclassifies
	d.Cached = true
	d.Steps = slices.Grow(d.Steps, len(o.steps))[:len(o.steps)]
	for i := range d.Steps { // One or two: a call that copies memory takes longer.
		to := &d.Steps[i]
		*to = o.steps[i]
	}
	for i := range o.connects {
		r := &d.connects[d.nversion]
		r.copyFrom(&o.connects[i])
		r.Previous, d.Connect, d.nversion = d.Connect, r, d.nversion+1
	}
	for i := range o.binds {
		r := &d.binds[d.nversion]
		*r = o.binds[i]
		r.Previous, d.Bind, d.nversion = d.Bind, r, d.nversion+1
	}
}
