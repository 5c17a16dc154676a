package policyrun

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// Before the first policy this process may bind and listen, and nobody may anything else.
func TestNothingButTheProxiesBeginsBeforeThereIsAPolicy(t *testing.T) {
	const own = 7
	for _, c := range []struct {
		layer   fwpm.LayerID
		process uint32
		want    fwp.Action
	}{
		{fwpm.LayerALEResourceAssignmentV4, own, fwp.ActionPermit},
		{fwpm.LayerALEAuthListenV6, own, fwp.ActionPermit},
		{fwpm.LayerALEResourceAssignmentV4, own + 1, fwp.ActionBlock},
		{fwpm.LayerALEAuthListenV6, own + 1, fwp.ActionBlock},
		{fwpm.LayerALEAuthConnectV4, own, fwp.ActionBlock},
		{fwpm.LayerALEAuthRecvAcceptV6, own, fwp.ActionBlock},
		{fwpm.LayerALEConnectRedirectV4, own + 1, fwp.ActionBlock},
	} {
		in := fwps.Incoming{Layer: c.layer, ProcessID: c.process}
		var d fwps.Decision
		interregnum{own}.Classify(t.Context(), &in, &d)
		require.Equal(t, c.want, d.Action, c)
		if c.want == fwp.ActionBlock {
			require.Equal(t, "no policy is in force yet", d.Decider().Why)
			require.Equal(t, c.layer, d.Decider().Layer)
			require.True(t, d.Decider().Hard)
		}
	}
}
