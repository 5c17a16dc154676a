package policytest

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/policyfile"
)

// Coverage is what of a policy was reached. It is safe for concurrent use.
type Coverage struct {
	policy *policyfile.File
	mu     sync.Mutex
	layers map[fwpm.LayerID][]*reach
	all    []*reach
}

// A reach is a filter and how far connections came with it.
type reach struct {
	*fwpm.Filter
	asked, matched bool
	held           []bool // by condition
}

// NewCoverage begins with nothing reached.
func NewCoverage(policy *policyfile.File) *Coverage {
	c := &Coverage{policy: policy, layers: map[fwpm.LayerID][]*reach{}}
	for i := range policy.Policy.Filters {
		f := &policy.Policy.Filters[i]
		r := &reach{Filter: f, held: make([]bool, len(f.Conditions))}
		c.all, c.layers[f.Layer] = append(c.all, r), append(c.layers[f.Layer], r)
	}
	return c
}

func (c *Coverage) add(asked []Classification) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range asked {
		a := &asked[i]
		for _, r := range c.layers[a.In.Layer] {
			r.add(a)
		}
	}
}

func (r *reach) add(a *Classification) {
	for _, s := range a.Steps {
		r.asked = r.asked || s.Filter == r.ID
	}
	met := map[fwpm.ConditionID]bool{}
	for i := range r.Conditions {
		c := &r.Conditions[i]
		holds := arbitrate.Holds(c, &a.In)
		r.held[i] = r.held[i] || holds
		met[c.Field] = met[c.Field] || holds
	}
	matches := true
	for _, ok := range met {
		matches = matches && ok
	}
	r.matched = r.matched || matches
}

// A Gap is a filter or a condition that no case reached.
type Gap struct {
	Place  string `json:"place"`
	Filter uint64 `json:"filter"`
	Name   string `json:"filter_name"`
	What   string `json:"what"`
}

// A Summary says how much of a policy was reached. The two families of one filter
// of the file count once, and so do their conditions.
type Summary struct {
	Filters        int   `json:"filters"`
	FiltersAsked   int   `json:"filters_asked"`
	Conditions     int   `json:"conditions"`
	ConditionsHeld int   `json:"conditions_held"`
	Gaps           []Gap `json:"gaps,omitempty"`
	OneFamily      []Gap `json:"one_family,omitempty"` // reached for one family only; not counted
}

// Percent is the share of filters and conditions that were reached, 100 of none.
func (s *Summary) Percent() float64 {
	all := s.Filters + s.Conditions
	if all == 0 {
		return 100
	}
	return 100 * float64(s.FiltersAsked+s.ConditionsHeld) / float64(all)
}

// Summary lists what was reached and what was not, in the order of the policy.
func (c *Coverage) Summary() Summary {
	c.mu.Lock()
	defer c.mu.Unlock()
	var s Summary
	entries := map[string][]*reach{}
	var order []string
	for _, r := range c.all {
		e := cmp.Or(c.policy.Entry(r.ID), fmt.Sprint(r.ID))
		if entries[e] == nil {
			order = append(order, e)
		}
		entries[e] = append(entries[e], r)
	}
	for _, e := range order {
		id := entries[e][0].ID
		s.filter(cmp.Or(c.policy.Place(id), fmt.Sprint(id)), entries[e])
		s.conditions(c.policy, entries[e])
	}
	return s
}

// filter counts a filter of the file, which is one for each of its families.
func (s *Summary) filter(place string, halves []*reach) {
	s.Filters++
	asked, matched := 0, false
	for _, r := range halves {
		matched = matched || r.matched
		if r.asked {
			asked++
		}
	}
	gap := Gap{place, uint64(halves[0].ID), halves[0].Name, "was never asked"}
	switch {
	case asked == 0 && matched:
		gap.What = "was never asked: its conditions held, but a heavier filter of its sublayer decided before"
		s.Gaps = append(s.Gaps, gap)
	case asked == 0:
		s.Gaps = append(s.Gaps, gap)
	default:
		s.FiltersAsked++
		if at := slices.IndexFunc(halves, func(r *reach) bool { return !r.asked }); at >= 0 {
			gap.Filter, gap.What = uint64(halves[at].ID), "was never asked at "+halves[at].Layer.String()
			s.OneFamily = append(s.OneFamily, gap)
		}
	}
}

func (s *Summary) conditions(policy *policyfile.File, halves []*reach) {
	type one struct {
		gap  Gap
		held bool
	}
	seen := map[string]*one{}
	var order []*one
	for _, r := range halves {
		for i := range r.Conditions {
			p := policy.ConditionPlace(r.ID, i)
			if seen[p] == nil {
				seen[p] = &one{gap: Gap{p, uint64(r.ID), r.Name, "never held: " + clause(&r.Conditions[i])}}
				order = append(order, seen[p])
			}
			seen[p].held = seen[p].held || r.held[i]
		}
	}
	for _, o := range order {
		s.Conditions++
		if o.held {
			s.ConditionsHeld++
		} else {
			s.Gaps = append(s.Gaps, o.gap)
		}
	}
}
