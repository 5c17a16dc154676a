package policytest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// An Explanation is a decision in words, and what would have to change for another.
type Explanation struct {
	Outcome string `json:"outcome"`
	To      string `json:"to,omitempty"` // where it goes in the end
	By      []Part `json:"by"`           // what decided; empty: no filter did (ARB-09)
	Without string `json:"without,omitempty"`
	// Others are filters that would decide otherwise, the nearest first.
	Others []Part `json:"others,omitempty"`
	// Arbitration is who stood where, at each layer that filters of several providers
	// were asked at. Empty for a policy without others beside it.
	Arbitration []Stand `json:"arbitration,omitempty"`
}

// A Part is a filter's in a decision.
type Part struct {
	Layer   string `json:"layer"`
	Filter  uint64 `json:"filter,omitempty"`
	Name    string `json:"filter_name,omitempty"`
	Place   string `json:"filter_place,omitempty"`
	Owner   string `json:"provider,omitempty"` // where others are beside the policy
	Callout string `json:"callout,omitempty"`
	Says    string `json:"says,omitempty"` // the callout's reason
	Rule    string `json:"rule,omitempty"`
	Late    bool   `json:"late,omitempty"` // it said something after a hard decision, which stands
	// Because are the conditions that held; If those that did not, and would have
	// to for Outcome.
	Because []string `json:"because,omitempty"`
	If      []string `json:"if,omitempty"`
	Outcome string   `json:"outcome,omitempty"`
}

// WhatIf makes another policy live, for a question of what would be.
type WhatIf func(func(*fwpm.Policy) error) error

// nearby is how many filters are tried, the nearest first.
const nearby = 64

// Explain decides a connection and tries what would decide it otherwise. It
// changes the policy meanwhile and puts it back.
func (w *World) Explain(ctx context.Context, in fwps.Incoming, change WhatIf) (*Explanation, error) {
	r := w.Record()
	o, err := w.Decide(ctx, r, in)
	if err != nil {
		return nil, err
	}
	x := explainer{w, ctx, in, change, o, slices.Clone(r.Asked)}
	e := &Explanation{Outcome: o.Action, By: x.by(), Arbitration: x.arbitration()}
	if o.Destination.IsValid() {
		e.To = o.Destination.String()
	}
	e.Without, err = x.without()
	if err == nil {
		e.Others, err = x.others()
	}
	return e, errors.Join(err, x.put(w.Policy.Policy.Filters))
}

type explainer struct {
	*World
	ctx    context.Context
	in     fwps.Incoming
	change WhatIf
	is     Outcome
	asked  []Classification
}

// by lists what decided: for a permit each filter that did.
func (x *explainer) by() (out []Part) {
	for _, r := range x.is.Reasons {
		if r.Filter == 0 && x.is.Action == Permit || x.is.Action == Permit && !r.Decided && r.Why == "" {
			continue
		}
		p := Part{Layer: r.Layer.String(), Filter: uint64(r.Filter), Name: r.Name, Place: x.Policy.Place(r.Filter), Callout: string(r.Callout), Says: r.Why, Rule: r.Rule,
			Late: !r.Decided && (r.Rule == "ARB-07" || r.Rule == "CO-CLS-06")}
		if x.Policy.Several() {
			p.Owner = Provider(r.Provider)
		}
		if f := x.filter(r.Filter); f != nil {
			if in := x.at(f.Layer); in != nil {
				p.Because = Holding(f, in)
			}
		}
		out = append(out, p)
	}
	return out
}

// at is what a layer was asked about, nil if it was not.
func (x *explainer) at(l fwpm.LayerID) *fwps.Incoming {
	for i := range x.asked {
		if x.asked[i].In.Layer == l {
			return &x.asked[i].In
		}
	}
	return nil
}

func (x *explainer) put(fs []fwpm.Filter) error {
	return x.change(func(p *fwpm.Policy) error { p.Filters = slices.Clone(fs); return nil })
}

// would decides with other filters.
func (x *explainer) would(fs []fwpm.Filter) (Outcome, error) {
	if err := x.put(fs); err != nil {
		return Outcome{}, err
	}
	return x.Decide(x.ctx, x.Record(), x.in)
}

// without takes filters away until the outcome is another, and says which and
// what it is then.
func (x *explainer) without() (string, error) {
	var gone []string
	fs := slices.Clone(x.Policy.Policy.Filters)
	for o := x.is; len(o.Reasons) > 0 && o.Reasons[0].Filter != 0 && len(gone) < nearby; {
		r := o.Reasons[0]
		gone = append(gone, fmt.Sprintf("%d %q", r.Filter, r.Name))
		fs = slices.DeleteFunc(fs, func(f fwpm.Filter) bool { return f.ID == r.Filter })
		var err error
		if o, err = x.would(fs); err != nil {
			return "", err
		}
		if o.differs(&x.is) {
			return fmt.Sprintf("without filter %s: %s", strings.Join(gone, " and "), o.words()), nil
		}
	}
	return "", nil
}

func (o *Outcome) differs(p *Outcome) bool {
	return o.Action != p.Action || o.Action == Redirect && o.Destination != p.Destination
}

func (o *Outcome) words() string {
	if o.Action == Redirect {
		return "redirect to " + o.Destination.String()
	}
	return o.Action
}
