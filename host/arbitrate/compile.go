// Package arbitrate is WFP filter arbitration: which of a policy's filters
// decide a classification. It is pure but for the callouts it calls.
package arbitrate

import (
	"cmp"
	"errors"
	"maps"
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
	layers [fwpm.NumLayers][]group
	opts   Options
}

// A group is up to as many sublayers as share an index, in order.
type group struct {
	subs  []fwpm.SublayerID
	index *node
}

type filter struct {
	*fwpm.Filter
	weight  uint64
	tests   []test // sorted by field: neighbours on one field are alternatives
	callout *calloutRef
	brief   // the other conditions
}

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
	c := compiler{check: check, opts: o, callouts: map[fwpm.CalloutID]*calloutRef{}, texts: map[string]*more{}, users: map[uint32]*more{}}
	for i := range p.Filters {
		f := &p.Filters[i]
		if err := check.Filter(f); err != nil {
			errs = append(errs, err)
			continue
		}
		c.add(f)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	prog := &Program{opts: o}
	for l, drafts := range c.drafts {
		prog.layers[l] = c.groups(drafts)
	}
	return prog, nil
}

// A compiler makes one Program. What filters have in common it makes once.
type compiler struct {
	check    *Checker
	opts     Options
	drafts   [fwpm.NumLayers]map[fwpm.SublayerID][]*filter
	callouts map[fwpm.CalloutID]*calloutRef
	texts    map[string]*more
	users    map[uint32]*more
	filters  []filter // a slab: a filter of its own would cost an allocation
	tests    []test
}

// add makes a checked filter ready.
func (c *compiler) add(f *fwpm.Filter) {
	out := c.filter(f)
	id := sublayerOf(f)
	drafts := &c.drafts[f.Layer]
	if *drafts == nil {
		*drafts = map[fwpm.SublayerID][]*filter{}
	}
	(*drafts)[id] = append((*drafts)[id], out)
}

// sublayerOf is where a filter lives (BFE-SUB-02).
func sublayerOf(f *fwpm.Filter) fwpm.SublayerID {
	if f.Sublayer == "" {
		return fwpm.SublayerUniversal
	}
	return f.Sublayer
}

func (c *compiler) filter(f *fwpm.Filter) *filter {
	if len(c.filters) == cap(c.filters) {
		c.filters = make([]filter, 0, min(1024, max(8, 2*cap(c.filters))))
	}
	w, _ := EffectiveWeight(f) // The checker has seen it.
	c.filters = append(c.filters, filter{Filter: f, weight: w})
	out := &c.filters[len(c.filters)-1]
	c.compileTests(out)
	if f.Action.CallsOut() {
		out.callout = c.callout(f.Callout)
	}
	return out
}

func (c *compiler) callout(id fwpm.CalloutID) *calloutRef {
	ref := c.callouts[id]
	if ref == nil {
		ref = &calloutRef{c.opts.Lookup(id), c.check.callouts[id].Provider}
		c.callouts[id] = ref
	}
	return ref
}

// groups puts the sublayers of a layer in order, the heaviest first (BFE-SUB-01).
func (c *compiler) groups(drafts map[fwpm.SublayerID][]*filter) []group {
	ids := slices.SortedFunc(maps.Keys(drafts), func(a, b fwpm.SublayerID) int {
		return cmp.Or(cmp.Compare(c.order(b), c.order(a)), cmp.Compare(a, b))
	})
	var out []group
	for subs := range slices.Chunk(ids, together) {
		var filters []*filter
		for place, id := range subs {
			for _, f := range drafts[id] {
				f.place = uint8(place)
				filters = append(filters, f)
			}
		}
		out = append(out, group{subs, newNode(filters)})
	}
	return out
}

// order is a sublayer's weight, with FWPM_SUBLAYER_INSPECTION below all others
// (BFE-SUB-03).
func (c *compiler) order(id fwpm.SublayerID) int {
	if id == fwpm.SublayerInspection {
		return -1
	}
	return int(c.check.sublayers[id])
}

// Generation is what Compile was given for a layer.
func (p *Program) Generation(l fwpm.LayerID) uint64 {
	if int(l) < len(p.opts.Generations) {
		return p.opts.Generations[l]
	}
	return 0
}
