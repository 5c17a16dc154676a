package host

import (
	"cmp"
	"iter"
	"maps"
	"slices"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/internal/trie"
)

// objects is the object store: a value that is copied to change it, at no cost that
// grows with it.
type objects struct {
	named   table[*object] // all but filters
	filters table[*object]
	uses    table[int] // how many objects refer to a key
	count   [fwpm.NumKinds]int

	edit    *trie.Edit
	touched map[key]bool // what may not be as in the store that this one is a copy of

	booting  bool
	disabled map[key]bool // since BootComplete (BFE-OBJ-06)
}

// builtin is the store of a new engine: its built-in objects.
func builtin(booting bool) *objects {
	w := &objects{edit: new(trie.Edit), touched: map[key]bool{}, booting: booting}
	for _, s := range []fwpm.Sublayer{
		{ID: fwpm.SublayerUniversal, Name: "FWPM_SUBLAYER_UNIVERSAL", Persistent: true, Weight: fwpm.SublayerUniversalWeight},
		{ID: fwpm.SublayerInspection, Name: "FWPM_SUBLAYER_INSPECTION", Persistent: true},
	} {
		o := newObject(&s)
		o.builtin = true
		w.insert(o)
	}
	return w
}

func (w *objects) clone() *objects {
	c := *w
	c.disabled = maps.Clone(w.disabled)
	c.edit, c.touched = new(trie.Edit), map[key]bool{}
	return &c
}

// of is the table of a kind.
func (w *objects) of(k fwpm.Kind) *table[*object] {
	if k == fwpm.KindFilter {
		return &w.filters
	}
	return &w.named
}

// get is the object of a key, nil if there is none.
func (w *objects) get(k key) *object { return w.of(k.kind).get(k) }

// all are the objects in no order.
func (w *objects) all() iter.Seq[*object] {
	return func(yield func(*object) bool) {
		for o := range w.named.all() {
			if !yield(o) {
				return
			}
		}
		w.filters.all()(yield)
	}
}

func (w *objects) insert(o *object) {
	w.touched[o.key] = true
	w.of(o.kind).set(w.edit, o.key, o)
	w.count[o.kind]++
	for _, r := range o.refs {
		w.uses.set(w.edit, r.key, w.uses.get(r.key)+1)
	}
}

func (w *objects) remove(o *object) {
	w.touched[o.key] = true
	w.of(o.kind).remove(w.edit, o.key)
	delete(w.disabled, o.key)
	w.count[o.kind]--
	for _, r := range o.refs {
		if n := w.uses.get(r.key) - 1; n > 0 {
			w.uses.set(w.edit, r.key, n)
		} else {
			w.uses.remove(w.edit, r.key)
		}
	}
}

// sorted lists the objects in the order of adding.
func (w *objects) sorted() []*object {
	return slices.SortedFunc(w.all(), byAge)
}

func byAge(a, b *object) int {
	return cmp.Or(cmp.Compare(a.seq, b.seq), cmp.Compare(a.key.name, b.key.name))
}

// policy is a copy of everything that was added.
func (w *objects) policy() *fwpm.Policy {
	p := new(fwpm.Policy)
	for _, o := range w.sorted() {
		if !o.builtin {
			appendTo(p, o)
		}
	}
	return p.Clone()
}

// appendTo adds an object's value to p, which must not be modified then.
func appendTo(p *fwpm.Policy, o *object) {
	switch v := o.value.(type) {
	case *fwpm.Provider:
		p.Providers = append(p.Providers, *v)
	case *fwpm.ProviderContext:
		p.ProviderContexts = append(p.ProviderContexts, *v)
	case *fwpm.Sublayer:
		p.Sublayers = append(p.Sublayers, *v)
	case *fwpm.Callout:
		p.Callouts = append(p.Callouts, *v)
	case *fwpm.Filter:
		p.Filters = append(p.Filters, *v)
	}
}

// each calls f with a pointer to every object of p, in an order in which nothing
// refers to what comes later.
func each(p *fwpm.Policy, f func(value any)) {
	for i := range p.Providers {
		f(&p.Providers[i])
	}
	for i := range p.ProviderContexts {
		f(&p.ProviderContexts[i])
	}
	for i := range p.Sublayers {
		f(&p.Sublayers[i])
	}
	for i := range p.Callouts {
		f(&p.Callouts[i])
	}
	for i := range p.Filters {
		f(&p.Filters[i])
	}
}

// boot ends the start-up (BFE-OBJ-06, BFE-OBJ-07).
func (w *objects) boot(autoStart func(string) bool) {
	w.booting, w.disabled = false, map[key]bool{}
	for o := range w.all() {
		p := w.get(key{kind: fwpm.KindProvider, name: string(o.provider)})
		if p == nil || !o.stored || autoStart == nil {
			continue
		}
		if service := p.value.(*fwpm.Provider).ServiceName; service != "" && !autoStart(service) {
			w.disabled[o.key] = true
		}
	}
}

// enforced reports whether a filter is live now.
func (w *objects) enforced(o *object) bool {
	if o.filter.Boottime {
		return w.booting
	}
	return !o.filter.Persistent || !w.booting && !w.disabled[o.key]
}
