package seccomp

import (
	"slices"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// Unenforced says why Run would not ask a filter about all that it is for; empty:
// it does.
func Unenforced(f *fwpm.Filter) (why string) {
	switch f.Layer.ForFamily(false) {
	case fwpm.LayerALEConnectRedirectV4, fwpm.LayerALEAuthConnectV4, fwpm.LayerALEFlowEstablishedV4,
		fwpm.LayerALEBindRedirectV4, fwpm.LayerALEResourceAssignmentV4, fwpm.LayerALEAuthListenV4:
		return ""
	case fwpm.LayerALEAuthRecvAcceptV4:
		if onlyTCP(f) {
			return ""
		}
		return "run decides connections that come in, but no datagrams: the filter needs the condition IP_PROTOCOL tcp"
	case fwpm.LayerALEEndpointClosureV4, fwpm.LayerALEResourceReleaseV4:
		return "run does not hear when a socket is closed, and would not ask it"
	}
	return "run would not ask this layer"
}

// onlyTCP reports whether a filter is about no other protocol.
func onlyTCP(f *fwpm.Filter) bool {
	protocol := func(c fwpm.Condition) bool { return c.Field == fwpm.ConditionIPProtocol }
	other := func(c fwpm.Condition) bool {
		return protocol(c) && (c.Match != fwp.MatchEqual || c.Value.Uint != uint64(fwps.ProtocolTCP))
	}
	return slices.ContainsFunc(f.Conditions, protocol) && !slices.ContainsFunc(f.Conditions, other)
}
