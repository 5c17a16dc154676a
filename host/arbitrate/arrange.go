package arbitrate

import (
	"cmp"
	"slices"

	"github.com/calloutd/calloutd/host/fwpm"
)

// reorder makes layers again whose sublayers are in another order now, or mostly gone.
func (c *compiler) reorder() {
	for l := range fwpm.LayerID(fwpm.NumLayers) {
		if c.p.layer(l) == nil {
			continue
		}
		if subs := c.p.layer(l).subs(); !slices.IsSortedFunc(subs, c.p.earlier) || len(c.p.lasting(subs)) < len(subs) {
			c.arrange(l, nil)
		}
	}
}

// lasting are some sublayers but for those that are gone, where these are many: each has
// a place that every classification looks at, but the index may have to be made again.
func (p *Program) lasting(subs []fwpm.SublayerID) []fwpm.SublayerID {
	there := slices.DeleteFunc(slices.Clone(subs), func(id fwpm.SublayerID) bool {
		_, ok := p.objects.sublayers[id]
		return !ok
	})
	if gone := len(subs) - len(there); gone < max(together, len(there)) {
		return subs
	}
	return there
}

// earlier is the order of sublayers, the heaviest first (BFE-SUB-01).
func (p *Program) earlier(a, b fwpm.SublayerID) int {
	return cmp.Or(cmp.Compare(p.order(b), p.order(a)), cmp.Compare(a, b))
}

// place is that of a sublayer, counted through the groups; -1 if it has none.
func (l *layer) place(id fwpm.SublayerID) int {
	if l != nil {
		if at, ok := l.places[id]; ok {
			return at
		}
	}
	return -1
}

// subs are the layer's sublayers, in order.
func (l *layer) subs() (ids []fwpm.SublayerID) {
	for _, g := range l.groups {
		ids = append(ids, g.subs...)
	}
	return ids
}

// arrange gives more sublayers their places in a layer. Where they do not come
// after all others the layer's index is made again.
func (c *compiler) arrange(id fwpm.LayerID, more []fwpm.SublayerID) {
	l := c.p.layer(id)
	if l == nil {
		l = &layer{}
	}
	all := l.subs()
	old := c.p.lasting(all)
	ids := append(slices.Clone(old), more...)
	if len(old) == 0 && !slices.Contains(ids, fwpm.SublayerUniversal) {
		ids = append(ids, fwpm.SublayerUniversal) // It is before most others, and filters come to it.
	}
	slices.SortFunc(ids, c.p.earlier)
	groups, counts := l.groups, l.fields
	var moved []*fwpm.Filter
	if !slices.Equal(ids[:len(old)], all[:len(old)]) {
		moved, groups, counts = l.filters(), nil, fields{}
	}
	next := &layer{owner: c.own, version: versions.Add(1), fields: counts, places: make(map[fwpm.SublayerID]int, len(ids))}
	for some := range slices.Chunk(ids, together) {
		g := &group{owner: c.own, subs: some}
		if i := len(next.groups); i < len(groups) {
			g.index = groups[i].index
		}
		next.groups = append(next.groups, g)
	}
	for at, id := range ids {
		next.places[id] = at
	}
	c.bank(id).layers[id%bankLen] = next
	for _, f := range moved {
		c.insert(f)
	}
}
