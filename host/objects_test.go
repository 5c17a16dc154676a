package host_test

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// Each row is what a static and a dynamic session do to a store that has objects
// of both, and how it must end.
func TestObjectRules(t *testing.T) {
	type world struct{ static, dynamic, other *host.Session }
	sublayer := func(s *host.Session, o fwpm.Sublayer) error { _, err := s.SublayerAdd(o); return err }
	filtered := func(s *host.Session, f fwpm.Filter) error { _, err := s.FilterAdd(f); return err }
	with := func(change func(*fwpm.Filter)) fwpm.Filter { f := filter("f", block); change(&f); return f }
	for _, c := range []struct {
		rule string
		do   func(w world) error
		want error
	}{
		{"BFE-OBJ-01 keys are unique within a kind", func(w world) error { return sublayer(w.static, fwpm.Sublayer{ID: "static", Name: "n"}) }, fwp.ErrAlreadyExists},
		{"BFE-OBJ-01 but only there", func(w world) error {
			_, err := w.static.ProviderAdd(fwpm.Provider{ID: "dynamic", Name: "n"})
			return err
		}, nil},
		{"BFE-OBJ-04 a filter's too", func(w world) error { return filtered(w.static, with(func(f *fwpm.Filter) { f.ID = 10 })) }, fwp.ErrAlreadyExists},

		{"BFE-OBJ-03 static to dynamic", func(w world) error { return filtered(w.static, with(func(f *fwpm.Filter) { f.Sublayer = "dynamic" })) }, fwp.ErrLifetimeMismatch},
		{"BFE-OBJ-03 dynamic to its own session's", func(w world) error { return filtered(w.dynamic, with(func(f *fwpm.Filter) { f.Sublayer = "dynamic" })) }, nil},
		{"BFE-OBJ-03 dynamic to another session's", func(w world) error { return filtered(w.other, with(func(f *fwpm.Filter) { f.Sublayer = "dynamic" })) }, fwp.ErrLifetimeMismatch},
		{"BFE-OBJ-03 dynamic to static", func(w world) error { return filtered(w.dynamic, with(func(f *fwpm.Filter) { f.Sublayer = "static" })) }, nil},
		{"BFE-OBJ-03 persistent to static", func(w world) error {
			return filtered(w.static, with(func(f *fwpm.Filter) { f.Persistent, f.Sublayer = true, "static" }))
		}, fwp.ErrLifetimeMismatch},
		{"BFE-OBJ-03 persistent to its provider's persistent", func(w world) error {
			return filtered(w.static, with(func(f *fwpm.Filter) { f.Persistent, f.Provider, f.Sublayer = true, "p", "persistent" }))
		}, nil},
		{"BFE-OBJ-03 persistent to another provider's persistent", func(w world) error {
			return filtered(w.static, with(func(f *fwpm.Filter) { f.Persistent, f.Provider, f.Sublayer = true, "q", "persistent" }))
		}, fwp.ErrLifetimeMismatch},
		{"BFE-OBJ-03 persistent to nobody's persistent", func(w world) error {
			return filtered(w.static, with(func(f *fwpm.Filter) { f.Persistent, f.Provider, f.Sublayer = true, "q", "nobody" }))
		}, nil},
		{"BFE-OBJ-03 persistent to built-in", func(w world) error {
			return filtered(w.static, with(func(f *fwpm.Filter) { f.Persistent, f.Sublayer = true, fwpm.SublayerInspection }))
		}, nil},
		{"BFE-OBJ-03 boot-time is stored as persistent is", func(w world) error {
			return filtered(w.static, with(func(f *fwpm.Filter) { f.Boottime, f.Sublayer = true, "static" }))
		}, fwp.ErrLifetimeMismatch},
		{"BFE-OBJ-02 a dynamic session adds nothing persistent", func(w world) error { return filtered(w.dynamic, with(func(f *fwpm.Filter) { f.Persistent = true })) }, fwp.ErrDynamicSessionInProgress},

		{"BFE-OBJ-04 BFE-SUB-04 a sublayer with filters", func(w world) error { return w.static.SublayerDelete("static") }, fwp.ErrInUse},
		{"CO-REG-07 a callout with filters", func(w world) error { return w.static.CalloutDelete("c") }, fwp.ErrInUse},
		{"BFE-OBJ-04 a provider with objects", func(w world) error { return w.static.ProviderDelete("p") }, fwp.ErrInUse},
		{"BFE-OBJ-04 a provider context with filters", func(w world) error { return w.static.ProviderContextDelete("pc") }, fwp.ErrInUse},
		{"BFE-OBJ-04 built-in", func(w world) error { return w.static.SublayerDelete(fwpm.SublayerUniversal) }, fwp.ErrBuiltinObject},
		{"BFE-OBJ-04 adding built-in", func(w world) error { return sublayer(w.static, fwpm.Sublayer{ID: fwpm.SublayerUniversal, Name: "n"}) }, fwp.ErrAlreadyExists},
		{"BFE-OBJ-04 another session's dynamic object", func(w world) error { return w.static.SublayerDelete("dynamic") }, fwp.ErrWrongSession},
		{"BFE-OBJ-04 one's own", func(w world) error { return w.dynamic.SublayerDelete("dynamic") }, nil},
		{"a dynamic session may delete static objects", func(w world) error { return w.dynamic.FilterDelete(10) }, nil},
		{"BFE-OBJ-04 no such filter", func(w world) error { return w.static.FilterDelete(99) }, fwp.ErrFilterNotFound},
		{"BFE-OBJ-04 no such sublayer", func(w world) error { return w.static.SublayerDelete("x") }, fwp.ErrSublayerNotFound},
		{"BFE-OBJ-04 no such callout", func(w world) error { return w.static.CalloutDelete("x") }, fwp.ErrCalloutNotFound},
		{"BFE-OBJ-04 no such provider", func(w world) error { return w.static.ProviderDelete("x") }, fwp.ErrProviderNotFound},
		{"BFE-OBJ-04 no such provider context", func(w world) error { return w.static.ProviderContextDelete("x") }, fwp.ErrProviderContextNotFound},

		{"BFE-OBJ-05 a filter without a name", func(w world) error { return filtered(w.static, filter("", block)) }, fwp.ErrNullDisplayName},
		{"BFE-OBJ-05 a sublayer without", func(w world) error { return sublayer(w.static, fwpm.Sublayer{ID: "s"}) }, fwp.ErrNullDisplayName},
		{"BFE-OBJ-05 a provider without", func(w world) error { _, err := w.static.ProviderAdd(fwpm.Provider{ID: "s"}); return err }, fwp.ErrNullDisplayName},
		{"BFE-OBJ-05 a provider context without", func(w world) error { _, err := w.static.ProviderContextAdd(fwpm.ProviderContext{}); return err }, fwp.ErrNullDisplayName},
		{"BFE-OBJ-05 a callout without", func(w world) error { _, err := w.static.CalloutAdd(fwpm.Callout{}); return err }, fwp.ErrNullDisplayName},
		{"BFE-OBJ-07 boot-time and persistent", func(w world) error {
			return filtered(w.static, with(func(f *fwpm.Filter) { f.Boottime, f.Persistent = true, true }))
		}, fwp.ErrInvalidFlags},
		{"BFE-OBJ-07 disabled is for reading", func(w world) error { return filtered(w.static, with(func(f *fwpm.Filter) { f.Disabled = true })) }, fwp.ErrInvalidFlags},
		{"BFE-OBJ-07 a provider's too", func(w world) error {
			_, err := w.static.ProviderAdd(fwpm.Provider{Name: "n", Disabled: true})
			return err
		}, fwp.ErrInvalidFlags},
		{"BFE-OBJ-07 registered is for reading", func(w world) error {
			_, err := w.static.CalloutAdd(fwpm.Callout{Name: "n", Registered: true})
			return err
		}, fwp.ErrInvalidFlags},

		{"BFE-SUB-02 no sublayer is the universal one", func(w world) error { return filtered(w.static, filter("f", block)) }, nil},
		{"a filter names a sublayer that is not there", func(w world) error { return filtered(w.static, with(func(f *fwpm.Filter) { f.Sublayer = "x" })) }, fwp.ErrSublayerNotFound},
		{"CO-REG-06 a filter calls a callout that is not there", func(w world) error { return filtered(w.static, calling("x")) }, fwp.ErrCalloutNotFound},
		{"a callout of a layer that is not there", func(w world) error {
			_, err := w.static.CalloutAdd(fwpm.Callout{Name: "n", ApplicableLayer: 3})
			return err
		}, fwp.ErrLayerNotFound},
		{"ARB-11 a callout of another layer", func(w world) error { return filtered(w.static, calling("v6")) }, fwp.ErrIncompatibleLayer},
		{"ARB-11 continue is no filter's action", func(w world) error { return filtered(w.static, filter("f", fwp.ActionContinue)) }, fwp.ErrInvalidActionType},
		{"BFE-WGT-01 SC-105 a range of 16", func(w world) error {
			return filtered(w.static, with(func(f *fwpm.Filter) { f.Weight = fwpm.Weight{Type: fwp.Uint8, Value: 16} }))
		}, fwp.ErrInvalidWeight},
		{"SC-106 a value of another type", func(w world) error {
			return filtered(w.static, with(func(f *fwpm.Filter) {
				f.Conditions = []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Value: fwp.U32(80)}}
			}))
		}, fwp.ErrTypeMismatch},
	} {
		t.Run(c.rule, func(t *testing.T) {
			e := host.New(host.Options{})
			w := world{open(t, e, host.SessionOptions{}), open(t, e, host.SessionOptions{Dynamic: true}), open(t, e, host.SessionOptions{Dynamic: true})}
			require.NoError(t, e.Update(func(p *fwpm.Policy) error {
				p.Providers = []fwpm.Provider{{ID: "p", Persistent: true}, {ID: "q", Persistent: true}}
				p.ProviderContexts = []fwpm.ProviderContext{{ID: "pc"}}
				p.Sublayers = []fwpm.Sublayer{{ID: "static"}, {ID: "persistent", Persistent: true, Provider: "p"}, {ID: "nobody", Persistent: true}}
				p.Callouts = []fwpm.Callout{{ID: "c"}, {ID: "v6", ApplicableLayer: fwpm.LayerALEAuthConnectV6}}
				p.Filters = []fwpm.Filter{{ID: 10, Name: "ten", Layer: layer, Sublayer: "static", Action: ask, Callout: "c", ProviderContext: "pc"}}
				return nil
			}))
			_, err := w.dynamic.SublayerAdd(fwpm.Sublayer{ID: "dynamic", Name: "d"})
			require.NoError(t, err)
			before := e.Policy()
			err = c.do(w)
			require.ErrorIs(t, err, c.want)
			if c.want == nil {
				return
			}
			var o *fwpm.ObjectError
			require.True(t, errors.As(err, &o), "%v says which object", err)
			require.Equal(t, before, e.Policy(), "nothing has changed")
		})
	}
}

func TestKeys(t *testing.T) {
	t.Run("BFE-OBJ-01 an object without a key gets one", func(t *testing.T) {
		s := open(t, host.New(host.Options{}), host.SessionOptions{})
		a, err := s.SublayerAdd(fwpm.Sublayer{Name: "a"})
		require.NoError(t, err)
		b, err := s.SublayerAdd(fwpm.Sublayer{Name: "b"})
		require.NoError(t, err)
		require.NotEqual(t, a, b)
		require.NoError(t, s.SublayerDelete(a))
		p, err := s.ProviderAdd(fwpm.Provider{Name: "p"})
		require.NoError(t, err)
		require.NoError(t, s.ProviderDelete(p))
		c, err := s.CalloutAdd(fwpm.Callout{Name: "c"})
		require.NoError(t, err)
		require.NoError(t, s.CalloutDelete(c))
		pc, err := s.ProviderContextAdd(fwpm.ProviderContext{Name: "pc"})
		require.NoError(t, err)
		require.NoError(t, s.ProviderContextDelete(pc))
	})
	t.Run("AMB-37 a filter that comes later has the higher identifier", func(t *testing.T) {
		e := host.New(host.Options{})
		s := open(t, e, host.SessionOptions{})
		require.NoError(t, e.Update(func(p *fwpm.Policy) error {
			p.Filters = []fwpm.Filter{{ID: 31, Name: "31", Layer: layer, Action: permit}}
			return nil
		}))
		id := add(t, s, filter("f", block))
		require.EqualValues(t, 32, id)
		require.NoError(t, s.FilterDelete(id))
		require.EqualValues(t, 33, add(t, s, filter("f", block)), "nor is one used again")
		require.Equal(t, permit, decide(t, e).Action, "the older one decides")
	})
	t.Run("when there is no higher one, that is an error", func(t *testing.T) {
		s := open(t, host.New(host.Options{}), host.SessionOptions{})
		f := filter("last", block)
		f.ID = 1<<64 - 1
		add(t, s, f)
		for range 2 {
			_, err := s.FilterAdd(filter("f", block))
			require.ErrorIs(t, err, fwp.ErrInvalidParameter)
		}
	})
	t.Run("what was not added has none", func(t *testing.T) {
		s := open(t, host.New(host.Options{}), host.SessionOptions{})
		filterID, err := s.FilterAdd(filter("", block))
		require.ErrorIs(t, err, fwp.ErrNullDisplayName)
		require.Zero(t, filterID)
		sublayer, err := s.SublayerAdd(fwpm.Sublayer{})
		require.ErrorIs(t, err, fwp.ErrNullDisplayName)
		require.Empty(t, sublayer)
		require.NoError(t, s.Begin(host.TxnReadOnly))
		f := filter("f", block)
		f.ID = 7
		filterID, err = s.FilterAdd(f)
		require.ErrorIs(t, err, fwp.ErrIncompatibleTxn)
		require.Zero(t, filterID)
	})
	t.Run("BFE-SUB-04 there is a limit", func(t *testing.T) {
		e := host.New(host.Options{})
		s := open(t, e, host.SessionOptions{})
		require.NoError(t, e.Update(func(p *fwpm.Policy) error {
			for i := range 1<<16 - 2 { // and the two built in
				p.Sublayers = append(p.Sublayers, fwpm.Sublayer{ID: fwpm.SublayerID(fmt.Sprint(i))})
			}
			return nil
		}))
		_, err := s.SublayerAdd(fwpm.Sublayer{Name: "one too many"})
		require.ErrorIs(t, err, fwp.ErrTooManySublayers)
	})
}

// Update and sessions have one store.
func TestUpdate(t *testing.T) {
	t.Run("Update sees what sessions added and deletes it", func(t *testing.T) {
		e := host.New(host.Options{})
		d := open(t, e, host.SessionOptions{Dynamic: true})
		add(t, d, filter("a", block))
		add(t, d, filter("b", block))
		require.NoError(t, e.Update(func(p *fwpm.Policy) error {
			require.Len(t, p.Filters, 2)
			p.Filters = p.Filters[1:]
			return nil
		}))
		require.Equal(t, []string{"b"}, names(e))
		d.Close()
		require.Empty(t, names(e), "what it kept stayed dynamic")
	})
	t.Run("a dynamic object that Update changes stays dynamic", func(t *testing.T) {
		e := host.New(host.Options{})
		d := open(t, e, host.SessionOptions{Dynamic: true})
		add(t, d, filter("a", block))
		require.NoError(t, e.Update(func(p *fwpm.Policy) error { p.Filters[0].Name = "changed"; return nil }))
		require.Equal(t, []string{"changed"}, names(e))
		d.Close()
		require.Empty(t, names(e))
	})
	t.Run("BFE-OBJ-02 what Update adds is static", func(t *testing.T) {
		e := host.New(host.Options{})
		d := open(t, e, host.SessionOptions{Dynamic: true})
		require.NoError(t, e.Update(func(p *fwpm.Policy) error {
			f := filter("static", block)
			f.ID = 1
			p.Filters = append(p.Filters, f)
			return nil
		}))
		d.Close()
		require.Equal(t, []string{"static"}, names(e))
	})
	t.Run("BFE-OBJ-03 lifetimes hold there too", func(t *testing.T) {
		e := host.New(host.Options{})
		d := open(t, e, host.SessionOptions{Dynamic: true})
		_, err := d.SublayerAdd(fwpm.Sublayer{ID: "dynamic", Name: "d"})
		require.NoError(t, err)
		err = e.Update(func(p *fwpm.Policy) error {
			p.Filters = []fwpm.Filter{{ID: 1, Name: "f", Layer: layer, Action: block, Sublayer: "dynamic"}}
			return nil
		})
		require.ErrorIs(t, err, fwp.ErrLifetimeMismatch)
		require.EqualError(t, err, "filter 1: sublayer: the object refers to one that can go earlier")
	})
	t.Run("every mistake comes back", func(t *testing.T) {
		e := host.New(host.Options{})
		err := e.Update(func(p *fwpm.Policy) error {
			p.Providers = []fwpm.Provider{{ID: "p", Disabled: true}, {}}
			p.Filters = []fwpm.Filter{{ID: 1, Layer: layer, Action: block}, {ID: 1, Name: "f", Layer: 3, Action: block}}
			return nil
		})
		for _, want := range []error{fwp.ErrInvalidFlags, fwp.ErrInvalidParameter, fwp.ErrNullDisplayName, fwp.ErrAlreadyExists, fwp.ErrLayerNotFound} {
			require.ErrorIs(t, err, want)
		}
		require.Empty(t, e.Policy().Providers)
	})
	t.Run("an error of the change comes back as it is", func(t *testing.T) {
		e := host.New(host.Options{})
		mine := errors.New("mine")
		require.Equal(t, mine, e.Update(func(p *fwpm.Policy) error {
			p.Filters = []fwpm.Filter{{ID: 1, Name: "f", Layer: layer, Action: block}}
			return mine
		}))
		require.Empty(t, names(e))
	})
	t.Run("what the caller keeps is the caller's", func(t *testing.T) {
		e := host.New(host.Options{})
		var kept *fwpm.Policy
		require.NoError(t, e.Update(func(p *fwpm.Policy) error {
			p.Filters = []fwpm.Filter{{ID: 1, Name: "f", Layer: layer, Action: block, Conditions: []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Value: fwp.U16(443)}}}}
			kept = p
			return nil
		}))
		kept.Filters[0].Conditions[0].Value = fwp.U16(1)
		kept.Filters[0].Action = permit
		e.Policy().Filters[0].Conditions[0].Value = fwp.U16(1)
		require.Equal(t, block, decide(t, e).Action)
		require.Equal(t, fwp.U16(443), e.Policy().Filters[0].Conditions[0].Value)
	})
}

// ALE-LAY-12: live flows ask again when the answer may have changed.
func TestGeneration(t *testing.T) {
	v6 := fwpm.LayerALEAuthConnectV6
	for _, c := range []struct {
		change string
		layers []fwpm.LayerID
		do     func(p *fwpm.Policy)
	}{
		{"nothing", nil, func(*fwpm.Policy) {}},
		{"a filter comes", []fwpm.LayerID{v6}, func(p *fwpm.Policy) {
			p.Filters = append(p.Filters, fwpm.Filter{ID: 9, Name: "n", Layer: v6, Action: block})
		}},
		{"a filter that is not enforced comes", nil, func(p *fwpm.Policy) {
			p.Filters = append(p.Filters, fwpm.Filter{ID: 9, Name: "n", Layer: v6, Action: block, Boottime: true})
		}},
		{"a filter goes", []fwpm.LayerID{layer}, func(p *fwpm.Policy) { p.Filters = p.Filters[1:] }},
		{"a filter moves", []fwpm.LayerID{layer, v6}, func(p *fwpm.Policy) { p.Filters[0].Layer = v6 }},
		{"a sublayer's weight", []fwpm.LayerID{layer}, func(p *fwpm.Policy) { p.Sublayers[0].Weight = 2 }},
		{"a sublayer without filters", nil, func(p *fwpm.Policy) { p.Sublayers = append(p.Sublayers, fwpm.Sublayer{ID: "new"}) }},
		{"a provider context's data", []fwpm.LayerID{layer}, func(p *fwpm.Policy) { p.ProviderContexts[0].Data = []byte("x") }},
		{"BFE-OBJ-06 a provider has no effect", nil, func(p *fwpm.Policy) { p.Providers[0].Name = "other" }},
	} {
		t.Run(c.change, func(t *testing.T) {
			e := host.New(host.Options{})
			require.NoError(t, e.Update(func(p *fwpm.Policy) error {
				p.Providers = []fwpm.Provider{{ID: "p"}}
				p.ProviderContexts = []fwpm.ProviderContext{{ID: "pc"}}
				p.Sublayers = []fwpm.Sublayer{{ID: "s", Weight: 1}}
				p.Filters = []fwpm.Filter{{ID: 1, Name: "n", Layer: layer, Action: permit, Sublayer: "s", Provider: "p", ProviderContext: "pc"},
					{ID: 2, Name: "of nothing that changes", Layer: fwpm.LayerALEAuthListenV4, Action: permit, Provider: "p"}}
				return nil
			}))
			before := map[fwpm.LayerID]uint64{}
			for _, l := range fwpm.Layers() {
				before[l] = e.Generation(l)
			}
			require.NoError(t, e.Update(func(p *fwpm.Policy) error { c.do(p); return nil }))
			var changed []fwpm.LayerID
			for _, l := range fwpm.Layers() {
				if e.Generation(l) != before[l] {
					changed = append(changed, l)
					require.Equal(t, fwp.ReasonPolicyChange, e.ReauthorizeReason(l, before[l]))
				}
				require.Zero(t, e.ReauthorizeReason(l, e.Generation(l)))
			}
			require.Equal(t, c.layers, changed)
		})
	}
	require.Zero(t, host.New(host.Options{}).Generation(1000))
	require.Zero(t, host.New(host.Options{}).ReauthorizeReason(1000, 0))
}

// BFE-TXN-04: an Update that fails uses no identifiers up.
func TestAnUpdateThatFailsLeavesTheIdentifiers(t *testing.T) {
	e := host.New(host.Options{})
	s := open(t, e, host.SessionOptions{})
	first := add(t, s, filter("first", permit))
	declare(t, s, "c")
	register(t, e, "c", &noted{refuse: errors.New("no")})
	for _, f := range []fwpm.Filter{filter("", block), calling("c")} {
		require.Error(t, e.Update(func(p *fwpm.Policy) error {
			f.ID = math.MaxUint64
			p.Filters = append(p.Filters, f)
			return nil
		}))
		require.Equal(t, first+1, add(t, s, filter("next", permit)))
		first++
	}
}
