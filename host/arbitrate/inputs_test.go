package arbitrate

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// changes are connections that differ from one of the others in a single member.
var changes = map[string]struct {
	of     inputs
	change func(in *fwps.Incoming)
}{
	"remote address":    {ofRemote, func(in *fwps.Incoming) { in.Remote = netip.MustParseAddrPort("198.51.100.8:443") }},
	"remote port":       {ofRemotePort, func(in *fwps.Incoming) { in.Remote = netip.MustParseAddrPort("198.51.100.7:80") }},
	"local address":     {ofLocal, func(in *fwps.Incoming) { in.Local = netip.MustParseAddrPort("192.0.2.2:9") }},
	"local port":        {ofLocalPort, func(in *fwps.Incoming) { in.Local = netip.MustParseAddrPort("192.0.2.1:10") }},
	"protocol":          {ofProtocol, func(in *fwps.Incoming) { in.Protocol = 17 }},
	"flags":             {ofFlags, func(in *fwps.Incoming) { in.Flags = fwp.FlagIsLoopback }},
	"direction":         {ofDirection, func(in *fwps.Incoming) { in.Inbound = true }},
	"program":           {ofApp, func(in *fwps.Incoming) { in.AppID = "/bin/other" }},
	"original program":  {ofOriginal, func(in *fwps.Incoming) { in.OriginalAppID = "/bin/other" }},
	"user":              {ofUser, func(in *fwps.Incoming) { in.UserID = 8 }},
	"user is not known": {ofUser, func(in *fwps.Incoming) { in.UserKnown = false }},
	"groups":            {ofUser, func(in *fwps.Incoming) { in.Groups = []uint32{2} }},
	"compartment":       {ofSystem, func(in *fwps.Incoming) { in.CompartmentID = 2 }},
	"reason":            {ofSystem, func(in *fwps.Incoming) { in.ReauthorizeReason = 1 }},
	"peer name": {bit(fwpm.ConditionPeerName) | calloutInputs, func(in *fwps.Incoming) {
		in.Other = map[fwpm.ConditionID]fwp.Value{fwpm.ConditionPeerName: fwp.Blob("x")}
	}},
	"other peer names":     {bit(fwpm.ConditionPeerName) | calloutInputs, func(in *fwps.Incoming) { in.PeerNames = &fwps.PeerNames{Names: []string{"x"}} }},
	"forgotten peer names": {bit(fwpm.ConditionPeerName) | calloutInputs, func(in *fwps.Incoming) { in.PeerNames = &fwps.PeerNames{Forgotten: true} }},
	"process":              {calloutInputs, func(in *fwps.Incoming) { in.ProcessID = 10 }},
	"original destination": {calloutInputs, func(in *fwps.Incoming) { in.OriginalDestination = in.Remote }},
	"target process":       {calloutInputs, func(in *fwps.Incoming) { in.LocalRedirectTargetPID = 1 }},
	"header":               {calloutInputs, func(in *fwps.Incoming) { in.HeaderInclude = true }},
	"endpoint":             {0, func(in *fwps.Incoming) { in.EndpointID = 99 }},
	"parent endpoint":      {0, func(in *fwps.Incoming) { in.ParentEndpointID = 99 }},
	"flow":                 {0, func(in *fwps.Incoming) { in.Flow = new(fwps.Flow) }},
}

// What is in the key matters and nothing else does: for every input and every member
// of a connection, by equal and by the hash.
func TestAnInputIsInTheKeyOfWhoReadsIt(t *testing.T) {
	base := fwps.Incoming{Layer: fwpm.LayerALEAuthConnectV4, Protocol: 6, AppID: "/bin/app", OriginalAppID: "/bin/first", UserID: 7, UserKnown: true, Groups: []uint32{1},
		Local: netip.MustParseAddrPort("192.0.2.1:9"), Remote: netip.MustParseAddrPort("198.51.100.7:443"), ProcessID: 9}
	all := []inputs{everything, ofMembers, 0}
	for i := range fwpm.NumConditions {
		all = append(all, bit(fwpm.ConditionID(i)))
	}
	for name, c := range changes {
		other := base
		c.change(&other)
		for _, of := range all {
			kept := of.copy(&base)
			matters := of&c.of != 0
			require.Equal(t, !matters, of.equal(&kept, &other), "%s, inputs %x", name, of)
			if !matters {
				require.Equal(t, of.hash(1, &base), of.hash(1, &other), "%s, inputs %x", name, of)
			}
		}
	}
}
