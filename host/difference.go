package host

import (
	"slices"

	"github.com/calloutd/calloutd/host/fwpm"
)

// A difference is what one store has and another has not: gone, the newest
// first, and came, the oldest first. Nothing refers to what is later on its list.
type difference struct{ gone, came []*object }

// newDifference is for a store that was made of old.
func newDifference(old, now *objects) (d difference) {
	for k := range now.touched {
		was, is := old.get(k), now.get(k)
		if was == is {
			continue
		}
		if was != nil {
			d.gone = append(d.gone, was)
		}
		if is != nil {
			d.came = append(d.came, is)
		}
	}
	slices.SortFunc(d.gone, byAge)
	slices.SortFunc(d.came, byAge)
	slices.Reverse(d.gone)
	return d
}

// touched says which layers may decide differently now: a filter came or went
// there, is enforced or not any more, or refers to something that changed.
func (d difference) touched(old, now *objects) (layers [fwpm.NumLayers]bool) {
	gone, changed := map[key]bool{}, map[key]bool{}
	for _, o := range d.gone {
		gone[o.key] = true
		if o.filter != nil && old.enforced(o) {
			layers[o.filter.Layer] = true
		}
	}
	for _, o := range d.came {
		switch {
		case o.filter != nil && now.enforced(o):
			layers[o.filter.Layer] = true
		case o.filter == nil && o.kind != fwpm.KindProvider && gone[o.key]: // A provider has no effect (BFE-OBJ-06).
			changed[o.key] = true // Filters that stayed can refer to it.
		}
	}
	if len(changed) == 0 && old.booting == now.booting {
		return layers
	}
	for o := range now.filters.all() {
		if swapped(old, now, o) || slices.ContainsFunc(o.refs, func(r ref) bool { return changed[r.key] }) {
			layers[o.filter.Layer] = true
		}
	}
	return layers
}

// swapped reports whether a filter that stayed is enforced now and was not
// before, or the other way round.
func swapped(old, now *objects, o *object) bool {
	return old.get(o.key) == o && old.enforced(o) != now.enforced(o)
}
