package arbitrate

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/internal/trie"
)

// A Change is the difference between two policies.
type Change struct {
	// Gone are filters of the program, by identifier and conditions, and Came those
	// that are new, which must have passed a Checker and not be modified afterwards.
	// A filter that changed is in both.
	Gone, Came []*fwpm.Filter
	// Objects are all objects of the policy but filters. Optional: as they were.
	Objects *Checker
	// Generations are those of the new program.
	Generations [fwpm.NumLayers]uint64
}

// Change returns the program of a changed policy, in time that depends on what
// changed and hardly on what stays. The program that it is made of goes on as it
// was. Sublayers whose order changes, or a new one before others, make the index
// of their layer again.
//
// The error is that a filter is gone which was not there.
func (p *Program) Change(ch Change) (*Program, error) {
	next := *p
	next.opts.Generations = ch.Generations
	c := newCompiler(&next, len(ch.Came))
	if err := c.remove(ch.Gone); err != nil {
		return nil, err
	}
	if ch.Objects != nil {
		next.objects = ch.Objects
		if !next.same(ch.Objects) {
			return compile(ch.Objects, append(next.filters(), ch.Came...), next.opts), nil
		}
		c.reorder()
	}
	c.add(ch.Came)
	return c.p, nil
}

// same reports whether the callouts that filters call are as objects say.
func (p *Program) same(objects *Checker) bool {
	for id, ref := range p.callouts {
		if o := objects.callouts[id]; o != nil && o.Provider != ref.provider {
			return false
		}
	}
	return true
}

// filters are all filters of the program, in no order.
func (p *Program) filters() (out []*fwpm.Filter) {
	for l := range p.layers {
		out = append(out, all(p.layers[l])...)
	}
	return out
}

func all(groups []group) (out []*fwpm.Filter) {
	seen := map[*filter]bool{}
	for i := range groups {
		groups[i].index.each(func(f *filter) {
			if !seen[f] {
				seen[f], out = true, append(out, f.Filter)
			}
		})
	}
	return out
}

// A compiler changes a program that nobody else sees yet.
type compiler struct {
	p      *Program
	opts   *Options
	own    trie.Edit
	mine   [fwpm.NumLayers]bool                    // layers whose groups are not shared any more
	places [fwpm.NumLayers]map[fwpm.SublayerID]int // where there are many
	refs   bool                                    // callouts are not shared any more
	slab   []filter                                // a filter of its own would cost an allocation
	tests  []test
}

func newCompiler(p *Program, filters int) *compiler {
	return &compiler{p: p, opts: &p.opts, slab: make([]filter, 0, min(filters, 1024))}
}

// groups are the groups of a layer, to be changed.
func (c *compiler) groups(l fwpm.LayerID) []group {
	if !c.mine[l] {
		c.mine[l], c.p.layers[l] = true, slices.Clone(c.p.layers[l])
	}
	return c.p.layers[l]
}

// at is the place of a sublayer in a layer, counted through its groups; -1 if it
// has none.
func (c *compiler) at(l fwpm.LayerID, id fwpm.SublayerID) int {
	if groups := c.p.layers[l]; len(groups) <= 1 {
		return slices.Index(subs(groups), id)
	}
	if c.places[l] == nil {
		c.places[l] = map[fwpm.SublayerID]int{}
		for i, id := range subs(c.p.layers[l]) {
			c.places[l][id] = i
		}
	}
	if at, ok := c.places[l][id]; ok {
		return at
	}
	return -1
}

func (c *compiler) remove(filters []*fwpm.Filter) error {
	for _, f := range filters {
		at := c.at(f.Layer, sublayerOf(f))
		gone := filter{}
		c.fill(&gone, f)
		if at < 0 || !(&edit{&c.groups(f.Layer)[at/together].index, &c.own}).remove(&gone) {
			return fmt.Errorf("filter %d is not in the program, or with other conditions", f.ID)
		}
	}
	return nil
}

// add adds filters, after the sublayers that are new in their layers.
func (c *compiler) add(filters []*fwpm.Filter) {
	var fresh [fwpm.NumLayers]map[fwpm.SublayerID]bool
	for _, f := range filters {
		if id := sublayerOf(f); c.at(f.Layer, id) < 0 {
			if fresh[f.Layer] == nil {
				fresh[f.Layer] = map[fwpm.SublayerID]bool{}
			}
			fresh[f.Layer][id] = true
		}
	}
	for l, ids := range fresh {
		if len(ids) > 0 {
			c.arrange(fwpm.LayerID(l), slices.Collect(maps.Keys(ids)))
		}
	}
	for _, f := range filters {
		c.insert(f)
	}
}

func (c *compiler) insert(f *fwpm.Filter) {
	at := c.at(f.Layer, sublayerOf(f))
	if len(c.slab) == cap(c.slab) {
		c.slab = make([]filter, 0, 1024)
	}
	c.slab = append(c.slab, filter{})
	out := &c.slab[len(c.slab)-1]
	c.fill(out, f)
	out.place = uint8(at % together)
	if f.Action.CallsOut() {
		out.callout = c.callout(f.Callout)
	}
	(&edit{&c.groups(f.Layer)[at/together].index, &c.own}).add(out)
}

// fill makes a checked filter ready.
func (c *compiler) fill(out *filter, f *fwpm.Filter) {
	w, _ := EffectiveWeight(f) // A checker has seen it.
	out.Filter, out.ID, out.weight, out.brief.weight = f, f.ID, w, codeOf(w)
	c.compileTests(out)
}

func (c *compiler) callout(id fwpm.CalloutID) *calloutRef {
	if ref := c.p.callouts[id]; ref != nil {
		return ref
	}
	if !c.refs {
		c.refs, c.p.callouts = true, maps.Clone(c.p.callouts)
		if c.p.callouts == nil {
			c.p.callouts = map[fwpm.CalloutID]*calloutRef{}
		}
	}
	ref := &calloutRef{c.opts.Lookup(id), c.p.objects.callouts[id].Provider}
	c.p.callouts[id] = ref
	return ref
}

// reorder makes layers again whose sublayers are in another order now.
func (c *compiler) reorder() {
	for l := range c.p.layers {
		if !slices.IsSortedFunc(subs(c.p.layers[l]), c.p.earlier) {
			c.arrange(fwpm.LayerID(l), nil)
		}
	}
}

// earlier is the order of sublayers, the heaviest first (BFE-SUB-01).
func (p *Program) earlier(a, b fwpm.SublayerID) int {
	return cmp.Or(cmp.Compare(p.order(b), p.order(a)), cmp.Compare(a, b))
}

// subs are the sublayers of groups, in order.
func subs(groups []group) (ids []fwpm.SublayerID) {
	if len(groups) == 1 {
		return groups[0].subs
	}
	for i := range groups {
		ids = append(ids, groups[i].subs...)
	}
	return ids
}

// arrange gives more sublayers their places in a layer. Where they do not come
// after all others the layer's index is made again.
func (c *compiler) arrange(l fwpm.LayerID, more []fwpm.SublayerID) {
	groups := c.groups(l)
	old := subs(groups)
	ids := append(slices.Clone(old), more...)
	slices.SortFunc(ids, c.p.earlier)
	var moved []*fwpm.Filter
	if !slices.Equal(ids[:len(old)], old) {
		moved, groups = all(groups), nil
	}
	for i, some := range slices.Collect(slices.Chunk(ids, together)) {
		if i < len(groups) {
			groups[i].subs = some
			continue
		}
		groups = append(groups, group{subs: some})
	}
	c.p.layers[l], c.places[l] = groups, nil
	for _, f := range moved {
		c.insert(f)
	}
}
