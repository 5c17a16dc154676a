// Package arbitrate is WFP filter arbitration: which of a policy's filters
// decide a classification. It is pure but for the callouts it calls.
package arbitrate

import (
	"errors"
	"time"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/trie"
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
	// as a failure. Zero is no limit but at ENDPOINT_CLOSURE, where a close waits that
	// nothing else would end: ten seconds. Less than zero is none there either (AMB-43).
	PendTimeout time.Duration
	// Cache keeps decisions. Optional: every classification asks anew.
	Cache *Cache
}

// A Program is a policy made ready to classify. It is immutable.
type Program struct {
	banks    [(fwpm.NumLayers + bankLen - 1) / bankLen]*bank // nil: there is nothing in it
	opts     *Options                                        // but for the generations
	objects  *Checker                                        // what the filters refer to
	callouts map[fwpm.CalloutID]*calloutRef
}

// A bank is some layers, so that a change copies few of them.
type bank struct {
	owner       *trie.Edit
	layers      [bankLen]*layer // nil: no filter was ever there
	generations [bankLen]uint64
}

const bankLen = 8

// layer is nil if no filter was ever there.
func (p *Program) layer(l fwpm.LayerID) *layer {
	if l < fwpm.NumLayers && p.banks[l/bankLen] != nil {
		return p.banks[l/bankLen].layers[l%bankLen]
	}
	return nil
}

// A layer has its sublayers in groups, in order.
type layer struct {
	owner   *trie.Edit
	version uint64 // no other layer has it, nor this one with other filters
	fields  fields
	groups  []*group
	places  map[fwpm.SublayerID]int // of the sublayers
}

// A group is up to as many sublayers as share an index.
type group struct {
	owner *trie.Edit
	subs  []fwpm.SublayerID
	index index
}

// A filter is as long as a line of the cache: what is asked of most filters that match
// costs one miss. ID, name, action and hard are as in Filter, whose lines are others.
type filter struct {
	*fwpm.Filter
	ID     fwpm.FilterID
	name   string
	app    string // the one ALE_APP_ID, empty if there are others or none
	extra  *extra // nil: there is nothing in it
	code   code   // of the weight
	action uint16
	place  uint8 // of the sublayer in its group
	hard   bool  // ClearActionRight
}

// extra is what most filters do not have.
type extra struct {
	tests   []test // the conditions that are not in the brief, but for the program
	callout *calloutRef
	step    *fwps.Step // what a decision notes first of a filter with a callout
	weight  uint64     // zero: the code says all of it
}

// weight is the filter's weight.
func (f *filter) weight() uint64 {
	if f.extra != nil && f.extra.weight != 0 {
		return f.extra.weight
	}
	return f.code.weight()
}

func (f *filter) callsOut() bool { return f.extra != nil && f.extra.callout != nil }

// calls is the filter's callout, which it must have.
func (f *filter) calls() *calloutRef { return f.extra.callout }

// A calloutRef is a callout of the policy and where its code is.
type calloutRef struct {
	slot     *Slot
	provider fwpm.ProviderID
}

// Compile checks a policy and makes it a Program, which refers to its filters: p
// must not be modified afterwards. Every mistake comes back, as *fwpm.ObjectError
// joined together.
func Compile(p *fwpm.Policy, o Options) (*Program, error) {
	check, err := NewChecker(p)
	errs := []error{err}
	filters := make([]*fwpm.Filter, len(p.Filters))
	for i := range p.Filters {
		filters[i] = &p.Filters[i]
		errs = append(errs, check.Filter(filters[i]))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	check.filters = nil
	return compile(check, filters, o), nil
}

func compile(check *Checker, filters []*fwpm.Filter, o Options) *Program {
	c := newCompiler(&Program{opts: &o, objects: check}, len(filters))
	defer c.end()
	c.generations(&o.Generations)
	c.add(filters)
	return c.p
}

// sublayerOf is where a filter lives (BFE-SUB-02).
func sublayerOf(f *fwpm.Filter) fwpm.SublayerID {
	if f.Sublayer == "" {
		return fwpm.SublayerUniversal
	}
	return f.Sublayer
}

// order is a sublayer's weight, with FWPM_SUBLAYER_INSPECTION below all others
// (BFE-SUB-03).
func (p *Program) order(id fwpm.SublayerID) int {
	if id == fwpm.SublayerInspection {
		return -1
	}
	return int(p.objects.sublayers[id])
}

// Generation is what Compile was given for a layer.
func (p *Program) Generation(l fwpm.LayerID) uint64 {
	if l < fwpm.NumLayers && p.banks[l/bankLen] != nil {
		return p.banks[l/bankLen].generations[l%bankLen]
	}
	return 0
}
