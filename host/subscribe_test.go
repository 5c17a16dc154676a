package host_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

func TestChanges(t *testing.T) {
	// heard subscribes and returns what was heard since it was asked last.
	heard := func(t *testing.T, s *host.Session, sub fwpm.Subscription) (take func() []string, unsubscribe func()) {
		var got []string
		unsubscribe, err := s.SubscribeChanges(sub, func(c fwpm.Change) { got = append(got, fmt.Sprint(c.Type, " ", c.Kind, " ", c.ID)) })
		require.NoError(t, err)
		return func() []string { out := got; got = nil; return out }, unsubscribe
	}
	both := func(k fwpm.Kind) fwpm.Subscription {
		return fwpm.Subscription{Kind: k, NotifyOnAdd: true, NotifyOnDelete: true}
	}
	t.Run("CHG-01 changes are told after the commit", func(t *testing.T) {
		e := host.New(host.Options{})
		s, w := open(t, e, host.SessionOptions{}), open(t, e, host.SessionOptions{})
		take, _ := heard(t, w, both(fwpm.KindFilter))
		require.NoError(t, s.Begin(0))
		a := add(t, s, filter("a", block))
		add(t, s, filter("b", block))
		require.NoError(t, s.FilterDelete(a))
		c := add(t, s, filter("c", block))
		require.Empty(t, take())
		require.NoError(t, s.Commit())
		require.Equal(t, []string{"add filter 2", "add filter 3"}, take())
		require.NoError(t, s.FilterDelete(c))
		require.Equal(t, []string{"delete filter 3"}, take())
		require.NoError(t, s.Begin(0))
		add(t, s, filter("d", block))
		require.NoError(t, s.Abort())
		require.Empty(t, take())
	})
	t.Run("BFE-SES-02 a session that is closed hears nothing more", func(t *testing.T) {
		e := host.New(host.Options{})
		s, w := open(t, e, host.SessionOptions{}), open(t, e, host.SessionOptions{})
		take, _ := heard(t, w, both(fwpm.KindFilter))
		w.Close()
		add(t, s, filter("a", block))
		require.Empty(t, take())
	})
	t.Run("CHG-01 every kind of object", func(t *testing.T) {
		e := host.New(host.Options{})
		w := open(t, e, host.SessionOptions{})
		var order []string
		for k := fwpm.KindProvider; k < fwpm.NumKinds; k++ {
			_, err := w.SubscribeChanges(both(k), func(c fwpm.Change) { order = append(order, fmt.Sprint(c.Type, " ", c.Kind)) })
			require.NoError(t, err)
		}
		require.NoError(t, e.Update(func(p *fwpm.Policy) error {
			p.Providers, p.ProviderContexts = []fwpm.Provider{{ID: "p"}}, []fwpm.ProviderContext{{ID: "pc"}}
			p.Sublayers, p.Callouts = []fwpm.Sublayer{{ID: "s"}}, []fwpm.Callout{{ID: "c"}}
			p.Filters = []fwpm.Filter{{ID: 1, Name: "f", Layer: layer, Action: block}}
			return nil
		}))
		require.Equal(t, []string{"add provider", "add provider context", "add sublayer", "add callout", "add filter"}, order)
		order = nil
		require.NoError(t, e.Update(func(p *fwpm.Policy) error { *p = fwpm.Policy{}; return nil }))
		require.ElementsMatch(t, []string{"delete provider", "delete provider context", "delete sublayer", "delete callout", "delete filter"}, order)
	})
	t.Run("CHG-01 of one kind, what came last goes first", func(t *testing.T) {
		e := host.New(host.Options{})
		s, w := open(t, e, host.SessionOptions{}), open(t, e, host.SessionOptions{})
		for _, name := range []string{"a", "b", "c"} {
			add(t, s, filter(name, block))
		}
		take, _ := heard(t, w, both(fwpm.KindFilter))
		require.NoError(t, e.Update(func(p *fwpm.Policy) error { p.Filters = nil; return nil }))
		require.Equal(t, []string{"delete filter 3", "delete filter 2", "delete filter 1"}, take())
	})
	t.Run("CHG-01 a changed object went and came", func(t *testing.T) {
		e := host.New(host.Options{})
		w := open(t, e, host.SessionOptions{})
		require.NoError(t, e.Update(func(p *fwpm.Policy) error { p.Sublayers = []fwpm.Sublayer{{ID: "s"}, {ID: "same"}}; return nil }))
		take, _ := heard(t, w, both(fwpm.KindSublayer))
		require.NoError(t, e.Update(func(p *fwpm.Policy) error { p.Sublayers[0].Weight = 5; return nil }))
		require.Equal(t, []string{"delete sublayer s", "add sublayer s"}, take())
	})
	t.Run("CHG-01 adding, deleting, or what a template says", func(t *testing.T) {
		e := host.New(host.Options{})
		s, w := open(t, e, host.SessionOptions{}), open(t, e, host.SessionOptions{})
		adds, _ := heard(t, w, fwpm.Subscription{Kind: fwpm.KindFilter, NotifyOnAdd: true})
		deletes, _ := heard(t, w, fwpm.Subscription{Kind: fwpm.KindFilter, NotifyOnDelete: true})
		permits, _ := heard(t, w, fwpm.Subscription{Kind: fwpm.KindFilter, NotifyOnAdd: true, NotifyOnDelete: true,
			Filters: &fwpm.FilterEnumTemplate{Layer: layer, ActionMask: permit &^ fwp.ActionFlagTerminating}})
		mine, _ := heard(t, w, fwpm.Subscription{Kind: fwpm.KindSublayer, NotifyOnAdd: true, Template: fwpm.EnumTemplate{Provider: "p"}})
		id := add(t, s, filter("a", block))
		add(t, s, filter("b", permit))
		require.NoError(t, s.FilterDelete(id))
		_, err := s.ProviderAdd(fwpm.Provider{ID: "p", Name: "p"})
		require.NoError(t, err)
		for id, p := range map[fwpm.SublayerID]fwpm.ProviderID{"mine": "p", "nobody's": ""} {
			_, err = s.SublayerAdd(fwpm.Sublayer{ID: id, Name: "n", Provider: p})
			require.NoError(t, err)
		}
		require.Equal(t, []string{"add filter 1", "add filter 2"}, adds())
		require.Equal(t, []string{"delete filter 1"}, deletes())
		require.Equal(t, []string{"add filter 2"}, permits())
		require.Equal(t, []string{"add sublayer mine"}, mine())
	})
	t.Run("a session does not hear of what it does itself", func(t *testing.T) {
		s := open(t, host.New(host.Options{}), host.SessionOptions{})
		take, _ := heard(t, s, both(fwpm.KindFilter))
		add(t, s, filter("a", block))
		require.Empty(t, take())
	})
	t.Run("unsubscribing and closing end it", func(t *testing.T) {
		e := host.New(host.Options{})
		s, w := open(t, e, host.SessionOptions{}), open(t, e, host.SessionOptions{})
		a, unsubscribe := heard(t, w, both(fwpm.KindFilter))
		b, _ := heard(t, w, both(fwpm.KindFilter))
		unsubscribe()
		add(t, s, filter("a", block))
		require.Empty(t, a())
		require.Len(t, b(), 1)
		w.Close()
		add(t, s, filter("a", block))
		require.Empty(t, b())
	})
	t.Run("what is not told yet is not told any more", func(t *testing.T) {
		e := host.New(host.Options{})
		s, w, closing := open(t, e, host.SessionOptions{}), open(t, e, host.SessionOptions{}), open(t, e, host.SessionOptions{})
		var unsubscribe func()
		_, err := w.SubscribeChanges(both(fwpm.KindFilter), func(fwpm.Change) { unsubscribe(); closing.Close() })
		require.NoError(t, err)
		a, stop := heard(t, w, both(fwpm.KindFilter))
		unsubscribe = stop
		b, _ := heard(t, closing, both(fwpm.KindFilter))
		add(t, s, filter("a", block))
		require.Empty(t, a())
		require.Empty(t, b())
	})
	t.Run("SC-109 others hear of a dynamic session's end", func(t *testing.T) {
		e := host.New(host.Options{})
		d, w := open(t, e, host.SessionOptions{Dynamic: true}), open(t, e, host.SessionOptions{})
		add(t, d, filter("a", block))
		take, _ := heard(t, w, both(fwpm.KindFilter))
		d.Close()
		require.Equal(t, []string{"delete filter 1"}, take())
	})
	t.Run("who hears may change the policy; the order of commits stays", func(t *testing.T) {
		e := host.New(host.Options{})
		s, w := open(t, e, host.SessionOptions{}), open(t, e, host.SessionOptions{})
		var got []string
		nested := false
		for range 2 {
			_, err := w.SubscribeChanges(both(fwpm.KindFilter), func(c fwpm.Change) {
				if !nested {
					nested = true
					_, err := s.FilterAdd(filter("nested", block))
					require.NoError(t, err)
				}
				got = append(got, c.ID)
			})
			require.NoError(t, err)
		}
		add(t, s, filter("first", block))
		require.Equal(t, []string{"1", "1", "2", "2"}, got)
	})
	t.Run("a subscriber that panics does not silence the others for ever", func(t *testing.T) {
		e := host.New(host.Options{})
		s, w := open(t, e, host.SessionOptions{}), open(t, e, host.SessionOptions{})
		unsubscribe, err := w.SubscribeChanges(both(fwpm.KindFilter), func(fwpm.Change) { panic("mine") })
		require.NoError(t, err)
		take, _ := heard(t, w, both(fwpm.KindFilter))
		require.Panics(t, func() { _, _ = s.FilterAdd(filter("a", block)) })
		require.Equal(t, []string{"a"}, names(e), "what is committed is committed")
		unsubscribe()
		add(t, s, filter("b", block))
		require.Equal(t, []string{"add filter 1", "add filter 2"}, take())
	})
	t.Run("a wrong subscription is refused", func(t *testing.T) {
		s := open(t, host.New(host.Options{}), host.SessionOptions{})
		for _, c := range []struct {
			sub  fwpm.Subscription
			want error
		}{
			{fwpm.Subscription{NotifyOnAdd: true}, fwp.ErrInvalidParameter},
			{fwpm.Subscription{Kind: fwpm.NumKinds, NotifyOnAdd: true}, fwp.ErrInvalidParameter},
			{fwpm.Subscription{Kind: fwpm.KindFilter}, fwp.ErrInvalidFlags},
			{fwpm.Subscription{Kind: fwpm.KindFilter, NotifyOnAdd: true, Filters: &fwpm.FilterEnumTemplate{}}, fwp.ErrLayerNotFound},
		} {
			_, err := s.SubscribeChanges(c.sub, func(fwpm.Change) {})
			require.ErrorIs(t, err, c.want)
		}
		_, err := s.SubscribeChanges(both(fwpm.KindFilter), nil)
		require.ErrorIs(t, err, fwp.ErrInvalidParameter)
	})
}
