package host

import (
	"slices"

	"github.com/calloutd/calloutd/host/fwpm"
)

// A difference is what one store has and another has not: gone, the newest
// first, and came, the oldest first. Nothing refers to what is later on its list.
type difference struct{ gone, came []*object }

func newDifference(old, now *objects) difference {
	missing := func(from, in *objects) (out []*object) {
		for k, o := range from.byKey {
			if in.byKey[k] != o && !o.builtin {
				out = append(out, o)
			}
		}
		slices.SortFunc(out, byAge)
		return out
	}
	d := difference{missing(old, now), missing(now, old)}
	slices.Reverse(d.gone)
	return d
}

// touched says which layers may decide differently now: a filter came or went
// there, is enforced or not any more, or refers to something that changed.
func (d difference) touched(old, now *objects) (layers [fwpm.NumLayers]bool) {
	changed := map[key]bool{}
	note := func(w *objects, os []*object) {
		for _, o := range os {
			switch {
			case o.filter == nil:
				changed[o.key] = o.kind != fwpm.KindProvider // It has no effect (BFE-OBJ-06).
			case w.enforced(o):
				layers[o.filter.Layer] = true
			}
		}
	}
	note(old, d.gone)
	note(now, d.came)
	if len(changed) == 0 && old.booting == now.booting {
		return layers
	}
	for _, o := range now.byKey {
		if o.filter != nil && (swapped(old, now, o) || slices.ContainsFunc(o.refs, func(r ref) bool { return changed[r.key] })) {
			layers[o.filter.Layer] = true
		}
	}
	return layers
}

// swapped reports whether a filter that stayed is enforced now and was not
// before, or the other way round.
func swapped(old, now *objects, o *object) bool {
	return old.byKey[o.key] == o && old.enforced(o) != now.enforced(o)
}
