package benchscale_test

import (
	"context"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
)

// The engine asks the guest no more about what it knows, and asks again after a
// reload; a guest in quarantine has no answers left.
func TestTheEngineKeepsWhatAGuestAnswered(t *testing.T) {
	rt, err := guest.NewRuntime(t.Context(), guest.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, rt.Close(context.Background())) })
	wasm, err := os.ReadFile("../guest/testdata/cacheable.wasm")
	require.NoError(t, err)
	o := guest.ModuleOptions{MaxFailures: 2, Names: func(*fwps.Incoming, netip.Addr, []byte) []byte { return nil }, Sets: [][]netip.Prefix{{}}, Tables: [][]guest.Row{{}}}
	over := make(chan struct{})
	defer close(over)
	o.OnEvent = func(e guest.Event) {
		if e.Kind == guest.EventQuarantined {
			<-over // Else the version before the reload could be back before it is asked again.
		}
	}
	m, err := rt.Load(t.Context(), "cacheable", wasm, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close(context.Background())) })
	e := host.New(host.Options{})
	_, _, err = e.RegisterCallout("c", m)
	require.NoError(t, err)
	l := redirectLayer
	require.NoError(t, e.Update(func(p *fwpm.Policy) error {
		p.Callouts = []fwpm.Callout{{ID: "c"}}
		p.Filters = []fwpm.Filter{{ID: 1, Name: "f", Layer: l, Action: fwp.ActionCalloutTerminating, Callout: "c"}}
		return nil
	}))
	d, endpoint := new(fwps.Decision), uint64(0)
	classify := func(port uint16) {
		endpoint++
		e.Classify(t.Context(), &fwps.Incoming{Layer: l, Protocol: fwps.ProtocolTCP, AppID: "/usr/bin/curl", EndpointID: endpoint,
			Local: netip.MustParseAddrPort("192.0.2.9:0"), Remote: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), port)}, d)
	}
	known := func(port uint16) bool {
		for range 4 {
			classify(port)
		}
		return d.Cached
	}
	for _, port := range []uint16{1, 2, 3} {
		require.True(t, known(port), "port %d", port)
	}
	for port := uint16(4); port <= 11; port++ {
		require.False(t, known(port), "port %d", port)
	}
	asked := m.Stats().Decisions
	hits := e.CacheHits(l)
	classify(1)
	require.Equal(t, asked, m.Stats().Decisions)
	require.Equal(t, hits+1, e.CacheHits(l))
	require.NoError(t, m.Reload(t.Context(), wasm, nil))
	classify(1)
	require.False(t, d.Cached)
	require.True(t, known(1))
	for range o.MaxFailures {
		classify(99)
		require.True(t, d.Faulted)
	}
	classify(1)
	require.False(t, d.Cached)
	require.Equal(t, fwp.ActionBlock, d.Action)
	require.Contains(t, d.Steps[0].Why, "quarantine")
}
