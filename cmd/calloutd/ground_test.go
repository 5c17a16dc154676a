package main

import (
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// A connection that was redirected under the policy before is the same callout's
// under the next, and every flow is asked about again.
func TestAPolicyTakesThePlaceOfAnother(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	tr := newTracer(io.Discard, false, false)
	g := newGround(tr)
	defer g.Close()
	old, err := openAs(t.Context(), quickstart, tr, setup{live: true, ground: g})
	require.NoError(t, err)
	g.inherit(old)
	var before [fwpm.NumLayers]uint64
	for l := range before {
		before[l] = g.Generation(fwpm.LayerID(l))
	}
	next, err := openAs(t.Context(), quickstart, tr, setup{live: true, ground: g})
	require.NoError(t, err)
	require.Same(t, old, g.reign.Load().world, "not yet")
	require.Equal(t, old.handles, next.handles)
	require.Equal(t, old.running, next.running)
	g.enter(next, tr)
	for l, since := range before {
		require.Greater(t, g.Generation(fwpm.LayerID(l)), since)
		require.Equal(t, fwp.ReasonPolicyChange, g.ReauthorizeReason(fwpm.LayerID(l), since), "ALE-LAY-12")
	}
	require.Empty(t, g.unused())
	require.True(t, old.idle())
	old.Close()
	next.Close()
}
