package host

import (
	"cmp"
	"slices"
	"sync"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// An Enum is an enumeration handle: the objects as they were when it was made
// (ENUM-01). It ends with its session.
type Enum[T any] struct {
	s      *Session
	mu     sync.Mutex
	rest   []T
	closed bool
}

// Next is FwpmFilterEnum0 and its likes: at most n more objects, none at the end.
// They are the caller's. After Destroy it is fwp.ErrInvalidEnumerator.
func (h *Enum[T]) Next(n int) ([]T, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed || h.s.ended():
		return nil, h.s.fail(fwp.ErrInvalidEnumerator)
	case n <= 0:
		return nil, h.s.fail(fwp.ErrInvalidParameter)
	}
	n = min(n, len(h.rest))
	batch := h.rest[:n:n]
	h.rest = h.rest[n:]
	return batch, nil
}

// Destroy is FwpmFilterDestroyEnumHandle0 and its likes.
func (h *Enum[T]) Destroy() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.s.ended() {
		return h.s.fail(fwp.ErrInvalidEnumerator)
	}
	h.closed, h.rest = true, nil
	return nil
}

// enumerate lists the values of one kind that the session sees, in the order of
// adding.
func enumerate[T any](s *Session, kind fwpm.Kind, want func(o *object) bool, show func(w *objects, o *object, v *T)) (*Enum[T], error) {
	h := &Enum[T]{s: s}
	err := s.view(func(w *objects) {
		for _, o := range w.sorted() {
			if o.kind == kind && want(o) {
				v := *o.value.(*T)
				show(w, o, &v)
				h.rest = append(h.rest, v)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return h, nil
}

// of is an EnumTemplate as a test.
func of(t fwpm.EnumTemplate) func(o *object) bool {
	return func(o *object) bool {
		if c, ok := o.value.(*fwpm.Callout); ok && t.Layer != 0 && c.ApplicableLayer != 0 && c.ApplicableLayer != t.Layer {
			return false
		}
		return t.Provider == "" || t.Provider == o.provider
	}
}

func asAdded[T any](*objects, *object, *T) {}

// ProviderCreateEnumHandle is FwpmProviderCreateEnumHandle0.
func (s *Session) ProviderCreateEnumHandle() (*Enum[fwpm.Provider], error) {
	return enumerate(s, fwpm.KindProvider, of(fwpm.EnumTemplate{}), func(w *objects, o *object, v *fwpm.Provider) { v.Disabled = w.disabled[o.key] })
}

// ProviderContextCreateEnumHandle is FwpmProviderContextCreateEnumHandle0.
func (s *Session) ProviderContextCreateEnumHandle(t fwpm.EnumTemplate) (*Enum[fwpm.ProviderContext], error) {
	return enumerate(s, fwpm.KindProviderContext, of(t), func(_ *objects, _ *object, v *fwpm.ProviderContext) { v.Data = slices.Clone(v.Data) })
}

// SublayerCreateEnumHandle is FwpmSubLayerCreateEnumHandle0. The built-in ones
// are among them (BFE-SUB-01).
func (s *Session) SublayerCreateEnumHandle(t fwpm.EnumTemplate) (*Enum[fwpm.Sublayer], error) {
	return enumerate(s, fwpm.KindSublayer, of(t), asAdded[fwpm.Sublayer])
}

// CalloutCreateEnumHandle is FwpmCalloutCreateEnumHandle0.
func (s *Session) CalloutCreateEnumHandle(t fwpm.EnumTemplate) (*Enum[fwpm.Callout], error) {
	s.e.mu.Lock()
	registered := map[fwpm.CalloutID]bool{}
	for id, r := range s.e.callouts {
		registered[id] = r.callout != nil
	}
	s.e.mu.Unlock()
	return enumerate(s, fwpm.KindCallout, of(t), func(_ *objects, _ *object, v *fwpm.Callout) { v.Registered = registered[v.ID] })
}

// FilterCreateEnumHandle is FwpmFilterCreateEnumHandle0. A nil template is every
// filter but boot-time and disabled ones; a wrong one is a *fwpm.ObjectError.
func (s *Session) FilterCreateEnumHandle(t *fwpm.FilterEnumTemplate) (*Enum[fwpm.Filter], error) {
	m, err := newFilterMatcher(t, s.e.opts.PrefixMatchesStart)
	if err != nil {
		return nil, err
	}
	h := &Enum[fwpm.Filter]{s: s}
	err = s.view(func(w *objects) {
		s.e.mu.Lock()
		defer s.e.mu.Unlock()
		for _, o := range m.find(w) {
			f := o.shown(s.e.context(o))
			f.Disabled = w.disabled[o.key]
			h.rest = append(h.rest, *f)
		}
	})
	if err != nil {
		return nil, err
	}
	return h, nil
}

// byArbitration is the order in which filters of a layer are asked (ARB-01), sublayer by
// sublayer.
func (w *objects) byArbitration(a, b *object) int {
	return cmp.Or(cmp.Compare(w.sublayerWeight(b), w.sublayerWeight(a)), cmp.Compare(sublayer(a), sublayer(b)),
		cmp.Compare(b.weight, a.weight), cmp.Compare(a.filter.ID, b.filter.ID))
}

func sublayer(o *object) fwpm.SublayerID { return cmp.Or(o.filter.Sublayer, fwpm.SublayerUniversal) }

// sublayerWeight is that of a filter's, which there is.
func (w *objects) sublayerWeight(o *object) int {
	id := sublayer(o)
	if id == fwpm.SublayerInspection { // below all others (BFE-SUB-03)
		return -1
	}
	return int(w.get(key{kind: fwpm.KindSublayer, name: string(id)}).value.(*fwpm.Sublayer).Weight)
}

// LayerCreateEnumHandle is FwpmLayerCreateEnumHandle0: the layers, which are all
// built in.
func (s *Session) LayerCreateEnumHandle() (*Enum[fwpm.LayerID], error) {
	if s.ended() {
		return nil, s.fail(fwp.ErrSessionAborted)
	}
	return &Enum[fwpm.LayerID]{s: s, rest: slices.Clone(fwpm.Layers())}, nil
}

// SessionCreateEnumHandle is FwpmSessionCreateEnumHandle0: the sessions that are
// open, this one among them, by key.
func (s *Session) SessionCreateEnumHandle() (*Enum[SessionOptions], error) {
	if s.ended() {
		return nil, s.fail(fwp.ErrSessionAborted)
	}
	h := &Enum[SessionOptions]{s: s}
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	for _, other := range s.e.sessions {
		h.rest = append(h.rest, other.o)
	}
	slices.SortFunc(h.rest, func(a, b SessionOptions) int { return cmp.Compare(a.Key, b.Key) })
	return h, nil
}
