// Package arbitrate is WFP filter arbitration: which of a policy's filters
// decide a classification. It is pure but for the callouts it calls.
package arbitrate

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/calloutd/calloutd/host/fwpm"
)

// Options say how a policy is compiled.
type Options struct {
	// Lookup returns the slot of a callout. Required if a filter calls one.
	Lookup func(fwpm.CalloutID) *Slot
	// Generations is what the program's Generation says of each layer.
	Generations [fwpm.NumLayers]uint64
	// PrefixMatchesStart makes FWP_MATCH_PREFIX test the start of a value, as its
	// name says, and not the end, as its page says (AMB-34).
	PrefixMatchesStart bool
	// FaultContinues makes a callout that failed no decision: the next filter is
	// asked. The default is a hard block (AMB-42).
	FaultContinues bool
	// PendTimeout is how long a callout may hold a classification. Then it counts
	// as a failure. Zero is no limit (AMB-43).
	PendTimeout time.Duration
}

// A Program is a policy made ready to classify. It is immutable.
type Program struct {
	layers [fwpm.NumLayers][]sublayer
	opts   Options
}

type sublayer struct {
	id      fwpm.SublayerID
	weight  uint16
	filters []filter
}

type filter struct {
	*fwpm.Filter
	weight   uint64
	provider fwpm.ProviderID // of the callout
	tests    []test          // sorted by field: neighbours on one field are alternatives
	slot     *Slot
}

// Compile checks a policy and makes it a Program. Every mistake comes back, as
// *fwpm.ObjectError joined together.
func Compile(p *fwpm.Policy, o Options) (*Program, error) {
	p = p.Clone()
	check, err := NewChecker(p)
	errs := []error{err}
	prog := &Program{opts: o}
	for i := range p.Filters {
		f := &p.Filters[i]
		if err := check.Filter(f); err != nil {
			errs = append(errs, err)
			continue
		}
		prog.add(check, f)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for l := range prog.layers {
		subs := prog.layers[l]
		slices.SortFunc(subs, func(a, b sublayer) int { return cmp.Or(cmp.Compare(b.weight, a.weight), cmp.Compare(a.id, b.id)) })
		for i := range subs {
			slices.SortFunc(subs[i].filters, func(a, b filter) int {
				return cmp.Or(cmp.Compare(b.weight, a.weight), cmp.Compare(a.ID, b.ID)) // AMB-37
			})
		}
	}
	return prog, nil
}

func (p *Program) add(check *Checker, f *fwpm.Filter) {
	if f.Sublayer == "" {
		f.Sublayer = fwpm.SublayerUniversal // BFE-SUB-02
	}
	subs := &p.layers[f.Layer]
	at := slices.IndexFunc(*subs, func(s sublayer) bool { return s.id == f.Sublayer })
	if at < 0 {
		at = len(*subs)
		*subs = append(*subs, sublayer{id: f.Sublayer, weight: check.sublayers[f.Sublayer]})
	}
	w, _ := EffectiveWeight(f) // The checker has seen it.
	out := filter{Filter: f, weight: w, tests: compileTests(f, p.opts.PrefixMatchesStart)}
	if f.Action.CallsOut() {
		out.slot, out.provider = p.opts.Lookup(f.Callout), check.callouts[f.Callout].Provider
	}
	(*subs)[at].filters = append((*subs)[at].filters, out)
}

// Generation is what Compile was given for a layer.
func (p *Program) Generation(l fwpm.LayerID) uint64 {
	if int(l) < len(p.opts.Generations) {
		return p.opts.Generations[l]
	}
	return 0
}
