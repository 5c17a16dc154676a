package seccomp

import (
	"slices"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// Enforces reports whether Run can ask a filter: it decides TCP connects. The
// bind and accept layers are asked about connecting sockets at most, nobody hears
// of their end, and no other protocol is decided on.
func Enforces(f *fwpm.Filter) bool {
	switch f.Layer.ForFamily(false) {
	case fwpm.LayerALEConnectRedirectV4, fwpm.LayerALEAuthConnectV4, fwpm.LayerALEFlowEstablishedV4:
	default:
		return false
	}
	const tcp = 6
	protocol := func(c fwpm.Condition) bool { return c.Field == fwpm.ConditionIPProtocol }
	return !slices.ContainsFunc(f.Conditions, protocol) || slices.ContainsFunc(f.Conditions, func(c fwpm.Condition) bool {
		return protocol(c) && (c.Match != fwp.MatchEqual || c.Value.Uint == tcp)
	})
}
