package arbitrate

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/trie"
)

// A compiler changes a program that nobody else sees yet.
type compiler struct {
	p       *Program
	opts    *Options
	own     *trie.Edit
	refs    bool     // callouts are not
	slab    []filter // a filter of its own would cost an allocation
	scratch *scratch
}

// A scratch is memory for what becomes of a filter's conditions before it is known
// what of it is kept: nothing of a filter that goes, little of most others.
type scratch struct {
	gone  filter
	extra extra
	tests []test
	mores []more
	aces  []ace
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func newCompiler(p *Program, filters int) *compiler {
	if p.opts == nil { // The zero Program.
		p.opts = new(Options)
	}
	return &compiler{p, p.opts, new(trie.Edit), false, make([]filter, 0, min(filters, 1024)), scratches.Get().(*scratch)}
}

// end gives the scratch up, without what it knows of filters. One that a filter with
// very many conditions had is not worth to be kept.
func (c *compiler) end() {
	s := c.scratch
	if cap(s.tests) > 64 {
		return
	}
	s.gone, s.extra = filter{}, extra{}
	clear(s.tests[:cap(s.tests)])
	clear(s.mores[:cap(s.mores)])
	clear(s.aces[:cap(s.aces)])
	scratches.Put(s)
}

// bank is the one of a layer, to be changed.
func (c *compiler) bank(l fwpm.LayerID) *bank {
	b := &c.p.banks[l/bankLen]
	switch {
	case *b == nil:
		*b = &bank{owner: c.own}
	case (*b).owner != c.own:
		mine := **b
		mine.owner, *b = c.own, &mine
	}
	return *b
}

// generations makes the program's those.
func (c *compiler) generations(g *[fwpm.NumLayers]uint64) {
	for i, b := range c.p.banks {
		var had, has [bankLen]uint64
		if b != nil {
			had = b.generations
		}
		if copy(has[:], g[i*bankLen:]); had != has {
			c.bank(fwpm.LayerID(i * bankLen)).generations = has
		}
	}
}

// index is the one of the group of a place, to be changed.
func (c *compiler) index(l fwpm.LayerID, at int) *index {
	mine := c.p.layer(l)
	if mine.owner != c.own {
		mine = &layer{c.own, versions.Add(1), mine.fields, slices.Clone(mine.groups), mine.places}
		c.bank(l).layers[l%bankLen] = mine
	}
	g := &mine.groups[at/together]
	if (*g).owner != c.own {
		*g = &group{c.own, (*g).subs, (*g).index}
	}
	return &(*g).index
}

func (c *compiler) remove(filters []*fwpm.Filter) error {
	for _, f := range filters {
		at := c.p.layer(f.Layer).place(sublayerOf(f))
		gone := &c.scratch.gone
		e := c.fill(gone, f)
		if at < 0 || !(&edit{c.index(f.Layer, at), c.own}).remove(&e) {
			return fmt.Errorf("filter %d is not in the program, or with other conditions", f.ID)
		}
		c.p.layer(f.Layer).fields.count(f, -1)
	}
	return nil
}

// add adds filters, after the sublayers that are new in their layers.
func (c *compiler) add(filters []*fwpm.Filter) {
	var fresh map[fwpm.LayerID]map[fwpm.SublayerID]bool
	for _, f := range filters {
		if id := sublayerOf(f); c.p.layer(f.Layer).place(id) < 0 {
			if fresh == nil {
				fresh = map[fwpm.LayerID]map[fwpm.SublayerID]bool{}
			}
			if fresh[f.Layer] == nil {
				fresh[f.Layer] = map[fwpm.SublayerID]bool{}
			}
			fresh[f.Layer][id] = true
		}
	}
	for l, ids := range fresh {
		c.arrange(l, slices.Collect(maps.Keys(ids)))
	}
	for _, f := range filters {
		c.insert(f)
	}
}

func (c *compiler) insert(f *fwpm.Filter) {
	at := c.p.layer(f.Layer).place(sublayerOf(f))
	if len(c.slab) == cap(c.slab) {
		c.slab = make([]filter, 0, 1024)
	}
	c.slab = append(c.slab, filter{})
	out := &c.slab[len(c.slab)-1]
	e := c.fill(out, f)
	if f.Action.CallsOut() {
		out.extra = &c.scratch.extra
		out.extra.callout = c.callout(f.Callout)
		out.extra.step = &fwps.Step{Layer: f.Layer, Sublayer: sublayerOf(f), Filter: f.ID, Name: f.Name, Callout: f.Callout, Action: f.Action, Rule: "ARB-01"}
	}
	out.own()
	out.place, e.place = uint8(at%together), uint8(at%together)
	(&edit{c.index(f.Layer, at), c.own}).add(&e)
	c.p.layer(f.Layer).fields.count(f, 1)
}

// fill makes a checked filter ready. What is extra of it is in the scratch.
func (c *compiler) fill(out *filter, f *fwpm.Filter) entry {
	w, _ := EffectiveWeight(f) // A checker has seen it.
	*out = filter{Filter: f, ID: f.ID, name: f.Name, code: codeOf(w), action: uint16(f.Action), hard: f.ClearActionRight}
	e := entry{f: out}
	e.weight, e.id, c.scratch.extra = out.code, uint32(min(f.ID, highest)), extra{}
	if w != out.code.weight() {
		e.has, c.scratch.extra.weight, out.extra = rounded, w, &c.scratch.extra
	}
	c.compileTests(&e)
	return e
}

// callout is where a callout is found. One that no filter called for a while can have
// registered anew meanwhile, in another slot.
func (c *compiler) callout(id fwpm.CalloutID) *calloutRef {
	slot := c.opts.Lookup(id)
	if ref := c.p.callouts[id]; ref != nil && ref.slot == slot {
		return ref
	}
	if !c.refs {
		c.refs, c.p.callouts = true, maps.Clone(c.p.callouts)
		if c.p.callouts == nil {
			c.p.callouts = map[fwpm.CalloutID]*calloutRef{}
		}
	}
	ref := &calloutRef{slot, c.p.objects.callouts[id].Provider}
	c.p.callouts[id] = ref
	return ref
}
