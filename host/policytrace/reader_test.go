package policytrace

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policyrun"
)

func TestTheEndOfASocketThatListenedNamesItsOwnAddress(t *testing.T) {
	r := Reader{Policy: &policyrun.Policy{File: new(policyfile.File)}}
	in := &fwps.Incoming{Layer: fwpm.LayerALEEndpointClosureV4, AppID: "/usr/bin/nc", ProcessID: 7, Local: netip.MustParseAddrPort("127.0.0.1:80")}
	e, text := r.Decision(in, &fwps.Decision{Action: fwp.ActionPermit})
	require.Equal(t, "ALE_ENDPOINT_CLOSURE_V4    /usr/bin/nc[7] at 127.0.0.1:80: permit\n    no filter matches (ARB-09)", text)
	require.Equal(t, "127.0.0.1:80", e.From)
	require.Empty(t, e.To)
}

// CH-16: whoever reads "block" and then "permit" is told why.
func TestABlockAtARedirectLayerSaysThatItGoesOn(t *testing.T) {
	r := Reader{Policy: &policyrun.Policy{File: new(policyfile.File)}}
	step := fwps.Step{Filter: 1, Name: "ask", Callout: "mine", Action: fwp.ActionBlock}
	for name, c := range map[string]struct {
		layer   fwpm.LayerID
		faulted bool
		told    bool
	}{
		"a callout blocks a connection":         {fwpm.LayerALEConnectRedirectV4, false, true},
		"a callout blocks a bind":               {fwpm.LayerALEBindRedirectV6, false, true},
		"a callout that failed stops it":        {fwpm.LayerALEConnectRedirectV4, true, false},
		"a block of ALE_AUTH_CONNECT is a stop": {fwpm.LayerALEAuthConnectV4, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			in := &fwps.Incoming{Layer: c.layer, AppID: "/usr/bin/nc", Remote: netip.MustParseAddrPort("192.0.2.1:80")}
			_, text := r.Decision(in, &fwps.Decision{Action: fwp.ActionBlock, Faulted: c.faulted, Steps: []fwps.Step{step}})
			require.Equal(t, c.told, strings.HasSuffix(text, "\n    a block at this layer stops nothing (CH-16): it goes on"), text)
		})
	}
}
