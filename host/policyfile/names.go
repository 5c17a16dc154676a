package policyfile

import (
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// A vocabulary is the names that a field's values have.
type vocabulary struct {
	noun  string
	bits  bool // each name is a bit
	names []name
}

var vocabularies = map[fwpm.ConditionID]vocabulary{
	fwpm.ConditionIPProtocol:               {"a protocol", false, protocols},
	fwpm.ConditionDirection:                {"a direction", false, directions},
	fwpm.ConditionIPLocalAddressType:       {"an address type", false, addressTypes},
	fwpm.ConditionIPDestinationAddressType: {"an address type", false, addressTypes},
	fwpm.ConditionReauthorizeReason:        {"a reason", true, reauthorizeReasons},
}

// vocabularyOf is that of a field at a layer, which sees only some of the flags
// (BFE-CND-09).
func vocabularyOf(c fwpm.ConditionID, l fwpm.LayerID) vocabulary {
	if c == fwpm.ConditionFlags {
		return vocabulary{"a flag of the layer", true, flagNames(l.Flags())}
	}
	return vocabularies[c]
}

func flagNames(flags fwp.ConditionFlags) []name {
	var all []name
	for _, w := range flags.Names() {
		f, _ := fwp.ParseConditionFlag(w)
		all = append(all, name{w, uint64(f)})
	}
	return all
}

type name struct {
	word  string
	value uint64
}

func (v *vocabulary) words() []string {
	var w []string
	for _, n := range v.names {
		w = append(w, n.word)
	}
	return w
}

var protocols = []name{{"tcp", 6}, {"udp", 17}, {"icmp", 1}, {"icmpv6", 58}}

// directions is FWP_DIRECTION.
var directions = []name{{"outbound", 0}, {"inbound", 1}}

// addressTypes is NL_ADDRESS_TYPE.
var addressTypes = []name{{"unspecified", 0}, {"unicast", 1}, {"anycast", 2}, {"multicast", 3}, {"broadcast", 4}}

// reauthorizeReasons is FWP_CONDITION_REAUTHORIZE_REASON_*.
var reauthorizeReasons = []name{
	{"POLICY_CHANGE", 0x1},
	{"NEW_ARRIVAL_INTERFACE", 0x2},
	{"NEW_NEXTHOP_INTERFACE", 0x4},
	{"PROFILE_CROSSING", 0x8},
	{"CLASSIFY_COMPLETION", 0x10},
	{"IPSEC_PROPERTIES_CHANGED", 0x20},
	{"MID_STREAM_INSPECTION", 0x40},
	{"SOCKET_PROPERTY_CHANGED", 0x80},
	{"NEW_INBOUND_MCAST_BCAST_PACKET", 0x100},
	{"EDP_POLICY_CHANGED", 0x200},
	{"PROXY_HANDLE_CHANGED", 0x4000},
	{"CHECK_OFFLOAD", 0x10000},
}
