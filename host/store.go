package host

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/internal/trie"
)

// A key names an object: keys are unique within a kind (BFE-OBJ-01).
type key struct {
	kind   fwpm.Kind
	name   string
	filter fwpm.FilterID // instead of a name
}

func (k key) id() string {
	if k.kind == fwpm.KindFilter {
		return strconv.FormatUint(uint64(k.filter), 10)
	}
	return k.name
}

// fail is an error of the object, or of one of its fields.
func (k key) fail(field string, err error) error {
	return &fwpm.ObjectError{Kind: k.kind.String(), ID: k.id(), Field: field, Err: err}
}

// missing is the code for an object that is not there, and limit how many there
// can be (BFE-OBJ-04, BFE-SUB-04, CO-REG-07).
var kinds = [fwpm.NumKinds]struct {
	missing fwp.Error
	limit   int
	tooMany fwp.Error
}{
	fwpm.KindProvider:        {fwp.ErrProviderNotFound, math.MaxInt, 0},
	fwpm.KindProviderContext: {fwp.ErrProviderContextNotFound, math.MaxInt, 0},
	fwpm.KindSublayer:        {fwp.ErrSublayerNotFound, 1 << 16, fwp.ErrTooManySublayers},
	fwpm.KindCallout:         {fwp.ErrCalloutNotFound, arbitrate.MaxCallouts, fwp.ErrTooManyCallouts},
	fwpm.KindFilter:          {fwp.ErrFilterNotFound, math.MaxInt, 0},
}

// An object is one object of the policy. It is immutable once it is in objects.
type object struct {
	key
	value    any          // *fwpm.Provider, *fwpm.Filter and so on, as it was added
	filter   *fwpm.Filter // the value of a filter
	provider fwpm.ProviderID
	name     string
	refs     []ref
	builtin  bool
	// stored objects are found again when the host starts anew: persistent and
	// boot-time ones.
	stored bool
	output string   // an output-only field that was set, else empty
	owner  *Session // of a dynamic object, else nil
	seq    uint64   // the order of adding

	// Of filters.
	weight  uint64
	told    *registered // whose notifyFn heard of it
	context uint64      // what that left in it (CO-NOT-02)
}

// A ref is an object that another one refers to, and by which field.
type ref struct {
	field string
	key
}

// newObject makes an object of a copy of a *fwpm.Provider, *fwpm.Filter and so on.
func newObject(value any) *object {
	o := &object{}
	switch v := value.(type) {
	case *fwpm.Provider:
		o.named(fwpm.KindProvider, string(v.ID), v.Name, "", v.Persistent)
		if v.Disabled {
			o.output = "disabled"
		}
		o.provider, o.value = v.ID, ptr(*v)
	case *fwpm.ProviderContext:
		o.named(fwpm.KindProviderContext, string(v.ID), v.Name, v.Provider, v.Persistent)
		o.value = ptr(*v)
	case *fwpm.Sublayer:
		o.named(fwpm.KindSublayer, string(v.ID), v.Name, v.Provider, v.Persistent)
		o.value = ptr(*v)
	case *fwpm.Callout:
		o.named(fwpm.KindCallout, string(v.ID), v.Name, v.Provider, v.Persistent)
		if v.Registered {
			o.output = "registered"
		}
		o.value = ptr(*v)
	case *fwpm.Filter:
		o.ofFilter(v)
	}
	return o
}

func ptr[T any](v T) *T { return &v }

func (o *object) named(kind fwpm.Kind, id, name string, p fwpm.ProviderID, persistent bool) {
	o.key = key{kind: kind, name: id}
	o.name, o.provider, o.stored = name, p, persistent
	o.refer("provider", fwpm.KindProvider, string(p))
}

func (o *object) refer(field string, kind fwpm.Kind, id string) {
	if id != "" {
		o.refs = append(o.refs, ref{field, key{kind: kind, name: id}})
	}
}

func (o *object) ofFilter(v *fwpm.Filter) {
	o.key = key{kind: fwpm.KindFilter, filter: v.ID}
	o.name, o.provider, o.stored = v.Name, v.Provider, v.Persistent || v.Boottime
	o.refer("provider", fwpm.KindProvider, string(v.Provider))
	o.refer("provider_context", fwpm.KindProviderContext, string(v.ProviderContext))
	o.refer("sublayer", fwpm.KindSublayer, string(v.Sublayer))
	o.refer("callout", fwpm.KindCallout, string(v.Callout))
	if v.Disabled {
		o.output = "disabled"
	}
	f := ptr(*v)
	f.Conditions = slices.Clone(v.Conditions)
	f.EffectiveWeight = 0
	o.weight, _ = arbitrate.EffectiveWeight(f) // The checker reports a wrong one.
	o.value, o.filter = f, f
}

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

// newKey is the GUID of an object that came without a key.
func newKey() string {
	var b [16]byte
	rand.Read(b[:]) // It never fails.
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
