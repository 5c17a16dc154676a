package policytest

import (
	"errors"
	"net/netip"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyfile"
)

// An Outcome is what became of one connection.
type Outcome struct {
	Action          string
	Destination     netip.AddrPort // not valid if it goes nowhere
	Context, Record []byte         // of a redirect
	// Reasons are what made it so. A block and a redirect have one; a permit has
	// every filter that was asked on the way, those that decided first.
	Reasons []Reason

	sound string // "true", or what is wrong; empty if nobody asked
}

// A Reason is a filter's, a layer's or the host's part in an outcome.
type Reason struct {
	Layer     fwpm.LayerID
	Filter    fwpm.FilterID // zero: none
	Name      string        // the filter's
	Callout   fwpm.CalloutID
	Provider  fwpm.ProviderID // the filter's
	Rule, Why string
	State     string // what the callout is told of the connection, empty without one
	Decided   bool   // it was not only asked
}

// outcome makes one of what the layers said, which is all of r.Asked from there on.
func (r *Recorder) outcome(w *World, from int, f *ale.Flow, err error) (Outcome, error) {
	o, err := r.became(w, from, f, err)
	for i := range o.Reasons {
		if f := w.filter(o.Reasons[i].Filter); f != nil {
			o.Reasons[i].Provider = f.Provider
		}
	}
	return o, err
}

func (r *Recorder) became(w *World, from int, f *ale.Flow, err error) (Outcome, error) {
	asked := r.Asked[from:]
	var b *ale.BlockedError
	switch {
	case errors.As(err, &b):
		r.trace.Blocked(b)
		why := Reason{Layer: b.Layer, Filter: b.Filter, Name: b.Name, Callout: b.Callout, Rule: b.Rule, Why: b.Why}
		why.State = w.stateAt(asked, b.Layer, b.Callout)
		return Outcome{Action: Block, Reasons: []Reason{why}}, nil
	case err != nil:
		return Outcome{}, err
	}
	o := Outcome{Action: Permit}
	if f != nil {
		o.Destination = f.Remote
		if f.Accepted() {
			o.Destination = f.Local
		}
	}
	for _, ev := range r.events {
		if ev.Err == nil && ev.Applied && ev.Layer.IsConnectRedirect() {
			o.Action, o.Context, o.Record = Redirect, r.context, r.record
			o.Reasons = append(o.Reasons, w.redirectReason(asked, ev))
		}
	}
	if o.Action == Permit {
		o.Reasons = w.permitReasons(asked, r.events)
	}
	return o, nil
}

// stateAt is what a callout was told where it was asked.
func (w *World) stateAt(asked []Classification, l fwpm.LayerID, c fwpm.CalloutID) string {
	for i := range asked {
		if asked[i].In.Layer == l {
			return w.state(&asked[i].In, c)
		}
	}
	return ""
}

func (w *World) state(in *fwps.Incoming, c fwpm.CalloutID) string {
	h, ok := w.Handles[c]
	if !ok || !in.Layer.IsConnectRedirect() {
		return ""
	}
	st, _ := in.Records.State(h)
	return st.String()
}

func (w *World) redirectReason(asked []Classification, ev ale.RedirectEvent) Reason {
	why := Reason{Layer: ev.Layer, Filter: ev.Filter, Callout: ev.Callout, State: w.stateAt(asked, ev.Layer, ev.Callout)}
	for i := range asked {
		for _, s := range asked[i].Steps {
			if asked[i].In.Layer == ev.Layer && s.Filter == ev.Filter && s.Redirected {
				why.Name, why.Rule, why.Why = s.Name, s.Rule, s.Why
			}
		}
	}
	return why
}

// permitReasons lists the refused redirects, the deciding filters of the last
// layer first, then whoever else was asked.
func (w *World) permitReasons(asked []Classification, events []ale.RedirectEvent) []Reason {
	var decided, others []Reason
	for i := len(asked) - 1; i >= 0; i-- {
		c := &asked[i]
		if !authorizes(c.In.Layer) {
			continue
		}
		if c.Deciding < 0 {
			decided = append(decided, Reason{Layer: c.In.Layer, Rule: "ARB-09", Decided: true})
		}
		for j, s := range c.Steps {
			why := Reason{Layer: c.In.Layer, Filter: s.Filter, Name: s.Name, Callout: s.Callout, Rule: s.Rule, Why: s.Why, State: w.state(&c.In, s.Callout), Decided: j == c.Deciding}
			if j == c.Deciding {
				decided = append(decided, why)
			} else {
				others = append(others, why)
			}
		}
	}
	var refused []Reason
	for _, ev := range events {
		if !ev.Applied {
			refused = append(refused, Reason{Layer: ev.Layer, Filter: ev.Filter, Name: w.filterName(ev.Filter), Callout: ev.Callout, Rule: ev.Rule, Why: ev.Why,
				State: w.stateAt(asked, ev.Layer, ev.Callout)})
		}
	}
	return append(decided, append(others, refused...)...)
}

func (w *World) filterName(id fwpm.FilterID) string {
	if f := w.filter(id); f != nil {
		return f.Name
	}
	return ""
}

// filter is one of the policy, nil if it has none of that number. They are in order of
// their numbers, but for what their author numbered.
func (w *World) filter(id fwpm.FilterID) *fwpm.Filter { return filterOf(w.Policy, id) }

func filterOf(p *policyfile.File, id fwpm.FilterID) *fwpm.Filter {
	fs := p.Policy.Filters
	if i := int(id) - 1; i >= 0 && i < len(fs) && fs[i].ID == id {
		return &fs[i]
	}
	for i := range fs {
		if fs[i].ID == id {
			return &fs[i]
		}
	}
	return nil
}

// authorizes reports whether a layer's answer changes anything (ALE-LAY-10).
func authorizes(l fwpm.LayerID) bool {
	switch l.ForFamily(false) {
	case fwpm.LayerALEFlowEstablishedV4, fwpm.LayerALEEndpointClosureV4, fwpm.LayerALEResourceReleaseV4:
		return false
	}
	return true
}
