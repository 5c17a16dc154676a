package host

import "github.com/calloutd/calloutd/host/fwpm"

// own makes an object the session's if that is dynamic (BFE-OBJ-02).
func (s *Session) own(o *object) *object {
	if s.o.Dynamic {
		o.owner = s
	}
	return o
}

func (s *Session) drop(k key) error {
	return s.write(func(t *txn) error { return t.delete(k) })
}

// FilterAdd is FwpmFilterAdd0. A filter without an ID gets one that is higher
// than any before; its ID is returned, zero for a filter that was not added.
func (s *Session) FilterAdd(f fwpm.Filter) (fwpm.FilterID, error) {
	if err := s.write(func(t *txn) (err error) {
		if f.ID == 0 {
			if f.ID, err = t.assignID(); err != nil {
				return err
			}
		}
		return t.add(s.own(newObject(&f)))
	}); err != nil {
		return 0, err
	}
	return f.ID, nil
}

// FilterDelete is FwpmFilterDeleteById0.
func (s *Session) FilterDelete(id fwpm.FilterID) error {
	return s.drop(key{kind: fwpm.KindFilter, filter: id})
}

// named adds an object that has a key, or gets one.
func named[ID ~string](s *Session, id *ID, value any) (ID, error) {
	if *id == "" {
		*id = ID(newKey())
	}
	if err := s.write(func(t *txn) error { return t.add(s.own(newObject(value))) }); err != nil {
		return "", err
	}
	return *id, nil
}

// SublayerAdd is FwpmSubLayerAdd0. Like all that have a key: without one the
// object gets one; the key is returned, none for an object that was not added.
func (s *Session) SublayerAdd(o fwpm.Sublayer) (fwpm.SublayerID, error) { return named(s, &o.ID, &o) }

// SublayerDelete is FwpmSubLayerDeleteByKey0.
func (s *Session) SublayerDelete(id fwpm.SublayerID) error {
	return s.drop(key{kind: fwpm.KindSublayer, name: string(id)})
}

// ProviderAdd is FwpmProviderAdd0.
func (s *Session) ProviderAdd(o fwpm.Provider) (fwpm.ProviderID, error) { return named(s, &o.ID, &o) }

// ProviderDelete is FwpmProviderDeleteByKey0.
func (s *Session) ProviderDelete(id fwpm.ProviderID) error {
	return s.drop(key{kind: fwpm.KindProvider, name: string(id)})
}

// ProviderContextAdd is FwpmProviderContextAdd0.
func (s *Session) ProviderContextAdd(o fwpm.ProviderContext) (fwpm.ProviderContextID, error) {
	return named(s, &o.ID, &o)
}

// ProviderContextDelete is FwpmProviderContextDeleteByKey0.
func (s *Session) ProviderContextDelete(id fwpm.ProviderContextID) error {
	return s.drop(key{kind: fwpm.KindProviderContext, name: string(id)})
}

// CalloutAdd is FwpmCalloutAdd0: filters may call it from then on, whether its
// code is registered or not (CO-REG-06).
func (s *Session) CalloutAdd(o fwpm.Callout) (fwpm.CalloutID, error) { return named(s, &o.ID, &o) }

// CalloutDelete is FwpmCalloutDeleteByKey0.
func (s *Session) CalloutDelete(id fwpm.CalloutID) error {
	return s.drop(key{kind: fwpm.KindCallout, name: string(id)})
}
