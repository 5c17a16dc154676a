package policytest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyfile"
)

// A Passed is a filter of a layer that was not asked.
type Passed struct {
	Filter         *fwpm.Filter
	SublayerWeight uint16
	Weight         uint64
	// Unmet are the fields whose conditions do not hold, and what they are. Empty:
	// the filter matches, and By decided its sublayer before it (ARB-01).
	Unmet []string
	By    fwpm.FilterID
}

// PassedBy lists the filters of a policy that a classification passed by: most of
// them, the heaviest of the heaviest sublayer first, and how many more there are.
func PassedBy(p *policyfile.File, in *fwps.Incoming, steps []fwps.Step, most int) (out []Passed, more int) {
	for i := range p.Policy.Filters {
		f := &p.Policy.Filters[i]
		if f.Layer == in.Layer && !slices.ContainsFunc(steps, func(s fwps.Step) bool { return s.Filter == f.ID }) {
			w, _ := arbitrate.EffectiveWeight(f) // It was compiled with it.
			out = append(out, Passed{Filter: f, SublayerWeight: sublayerWeight(p, f.Sublayer), Weight: w})
		}
	}
	slices.SortStableFunc(out, func(a, b Passed) int {
		return cmp.Or(cmp.Compare(b.SublayerWeight, a.SublayerWeight), cmp.Compare(b.Weight, a.Weight), cmp.Compare(a.Filter.ID, b.Filter.ID))
	})
	if more = len(out) - most; more > 0 {
		out = out[:most]
	}
	for i := range out {
		n := near{out[i].Filter, unmet(out[i].Filter, in)}
		for _, field := range n.unmet {
			out[i].Unmet = append(out[i].Unmet, n.wish(field, in))
		}
		if len(n.unmet) == 0 {
			out[i].By = lastOf(steps, out[i].Filter.Sublayer)
		}
	}
	return out, max(0, more)
}

// lastOf is the filter that was asked last in a sublayer: the one that decided it.
func lastOf(steps []fwps.Step, id fwpm.SublayerID) fwpm.FilterID {
	id = cmp.Or(id, fwpm.SublayerUniversal)
	for _, s := range slices.Backward(steps) {
		if s.Sublayer == id {
			return s.Filter
		}
	}
	return 0
}

// Holding are the conditions of a filter that hold, in words.
func Holding(f *fwpm.Filter, in *fwps.Incoming) (out []string) {
	for i := range f.Conditions {
		if c := &f.Conditions[i]; arbitrate.Holds(c, in) {
			out = append(out, clause(c))
		}
	}
	return out
}

// few joins alternatives, of which there can be a hundred thousand.
func few(any []string) string {
	const most = 8
	if more := len(any) - most; more > 0 {
		any = append(slices.Clone(any[:most]), fmt.Sprintf("%d more", more))
	}
	return strings.Join(any, " or ")
}
