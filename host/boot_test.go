package host_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

func stored(p *fwpm.Policy) error {
	p.Providers = []fwpm.Provider{{ID: "on", Persistent: true, ServiceName: "enabled"}, {ID: "off", Persistent: true, ServiceName: "disabled"},
		{ID: "none", Persistent: true}}
	p.Filters = []fwpm.Filter{
		{ID: 1, Name: "boot-time", Layer: layer, Action: block, Boottime: true},
		{ID: 2, Name: "on", Layer: layer, Action: permit, Persistent: true, Provider: "on"},
		{ID: 3, Name: "off", Layer: fwpm.LayerALEAuthListenV4, Action: block, Persistent: true, Provider: "off"},
		{ID: 4, Name: "none", Layer: fwpm.LayerALEAuthListenV4, Action: permit, Persistent: true, Provider: "none"},
		{ID: 5, Name: "static", Layer: fwpm.LayerALEAuthRecvAcceptV4, Action: block},
	}
	return nil
}

func enabled(service string) bool { return service == "enabled" }

func TestBoot(t *testing.T) {
	decider := func(e *host.Engine, l fwpm.LayerID) string {
		if s := classify(e, incoming(l)).Decider(); s != nil {
			return s.Name
		}
		return ""
	}
	listen, accept := fwpm.LayerALEAuthListenV4, fwpm.LayerALEAuthRecvAcceptV4
	t.Run("BFE-OBJ-07 boot-time filters count until the start-up is over, then persistent ones", func(t *testing.T) {
		e := host.New(host.Options{Booting: true})
		require.NoError(t, e.Update(stored))
		require.Equal(t, "boot-time", decider(e, layer))
		require.Empty(t, decider(e, listen))
		require.Equal(t, "static", decider(e, accept))
		before := map[fwpm.LayerID]uint64{layer: e.Generation(layer), listen: e.Generation(listen), accept: e.Generation(accept)}
		require.NoError(t, e.BootComplete(nil))
		require.Equal(t, "on", decider(e, layer))
		require.Equal(t, "off", decider(e, listen))
		require.Equal(t, "static", decider(e, accept))
		require.NotEqual(t, before[layer], e.Generation(layer), "ALE-LAY-12")
		require.NotEqual(t, before[listen], e.Generation(listen))
		require.Equal(t, before[accept], e.Generation(accept))
		after := e.Generation(layer)
		require.NoError(t, e.BootComplete(nil))
		require.Equal(t, after, e.Generation(layer), "once")
	})
	t.Run("an engine whose host is ready never enforces boot-time filters", func(t *testing.T) {
		e := host.New(host.Options{})
		require.NoError(t, e.Update(stored))
		require.Equal(t, "on", decider(e, layer))
	})
	t.Run("BFE-TXN-03 it waits for a transaction, and says when it gave up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := host.New(host.Options{Booting: true})
			require.NoError(t, e.Update(stored))
			require.NoError(t, open(t, e, host.SessionOptions{}).Begin(0))
			require.ErrorIs(t, e.BootComplete(nil), fwp.ErrTimeout)
			require.Equal(t, "boot-time", decider(e, layer))
		})
	})
	t.Run("BFE-OBJ-06 persistent objects of a disabled service are disabled", func(t *testing.T) {
		e := host.New(host.Options{Booting: true})
		s := open(t, e, host.SessionOptions{})
		require.NoError(t, e.Update(stored))
		require.NoError(t, e.BootComplete(enabled))
		require.Equal(t, "on", decider(e, layer))
		require.Equal(t, "none", decider(e, listen))
		byName := func(flags fwp.FilterEnumFlags) map[string]bool {
			out := map[string]bool{}
			for _, f := range filters(t, s, &fwpm.FilterEnumTemplate{Layer: listen, ActionMask: fwpm.AnyAction, Flags: flags}) {
				out[f.Name] = f.Disabled
			}
			return out
		}
		require.Equal(t, map[string]bool{"none": false}, byName(0), "ENUM-02")
		require.Equal(t, map[string]bool{"none": false, "off": true}, byName(fwp.FilterEnumIncludeDisabled))
		for _, p := range drain(t, must(s.ProviderCreateEnumHandle())) {
			require.Equal(t, p.ID == "off", p.Disabled)
		}
		require.NoError(t, e.Update(func(p *fwpm.Policy) error { p.Sublayers = append(p.Sublayers, fwpm.Sublayer{ID: "s"}); return nil }))
		require.Equal(t, "none", decider(e, listen), "it stays so")
		require.NoError(t, s.FilterDelete(3))
		_, err := s.FilterAdd(fwpm.Filter{ID: 3, Name: "off", Layer: listen, Action: block, Persistent: true, Provider: "off"})
		require.NoError(t, err)
		require.Equal(t, "off", decider(e, listen), "until it is added anew")
	})
	t.Run("objects that were disabled can be replaced by Update", func(t *testing.T) {
		e := host.New(host.Options{Booting: true})
		require.NoError(t, e.Update(stored))
		require.NoError(t, e.BootComplete(enabled))
		require.NoError(t, e.Update(func(p *fwpm.Policy) error { p.Filters[2].Name = "renamed"; return nil }))
		require.Equal(t, "renamed", decider(e, listen))
	})
}
