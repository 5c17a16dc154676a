package policytrace

import (
	"net/netip"
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
