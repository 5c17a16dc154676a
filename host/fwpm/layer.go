package fwpm

import (
	"fmt"

	"github.com/calloutd/calloutd/host/fwp"
)

// LayerID is the run-time identifier of a layer, FWPS_LAYER_* (ALE-LAY-01).
type LayerID uint16

// The layers of the connect and accept paths.
const (
	LayerALEAuthRecvAcceptV4  LayerID = 44
	LayerALEAuthRecvAcceptV6  LayerID = 46
	LayerALEAuthConnectV4     LayerID = 48
	LayerALEAuthConnectV6     LayerID = 50
	LayerALEFlowEstablishedV4 LayerID = 52
	LayerALEFlowEstablishedV6 LayerID = 54
	LayerALEEndpointClosureV4 LayerID = 64
	LayerALEEndpointClosureV6 LayerID = 65
	LayerALEConnectRedirectV4 LayerID = 66
	LayerALEConnectRedirectV6 LayerID = 67
)

// NumLayers is one more than the highest LayerID, for tables indexed by layer.
const NumLayers = 70

// ConditionID is a filtering condition field, FWPM_CONDITION_*.
type ConditionID uint8

// The fields of the layers above.
const (
	ConditionALEAppID ConditionID = iota + 1
	ConditionALEUserID
	ConditionALEOriginalAppID
	ConditionIPLocalAddress
	ConditionIPLocalAddressType
	ConditionIPLocalPort
	ConditionIPProtocol
	ConditionIPRemoteAddress
	ConditionIPDestinationAddressType
	ConditionIPRemotePort
	ConditionFlags
	ConditionDirection
	ConditionCompartmentID
	ConditionALEReauthReason

	numConditions
)

type conditionInfo struct {
	name string
	typ  fwp.DataType
}

var conditions = [numConditions]conditionInfo{
	ConditionALEAppID:                 {"ALE_APP_ID", fwp.ByteBlob},
	ConditionALEUserID:                {"ALE_USER_ID", fwp.Uint32},
	ConditionALEOriginalAppID:         {"ALE_ORIGINAL_APP_ID", fwp.ByteBlob},
	ConditionIPLocalAddress:           {"IP_LOCAL_ADDRESS", fwp.Empty},
	ConditionIPLocalAddressType:       {"IP_LOCAL_ADDRESS_TYPE", fwp.Uint8},
	ConditionIPLocalPort:              {"IP_LOCAL_PORT", fwp.Uint16},
	ConditionIPProtocol:               {"IP_PROTOCOL", fwp.Uint8},
	ConditionIPRemoteAddress:          {"IP_REMOTE_ADDRESS", fwp.Empty},
	ConditionIPDestinationAddressType: {"IP_DESTINATION_ADDRESS_TYPE", fwp.Uint8},
	ConditionIPRemotePort:             {"IP_REMOTE_PORT", fwp.Uint16},
	ConditionFlags:                    {"FLAGS", fwp.Uint32},
	ConditionDirection:                {"DIRECTION", fwp.Uint32},
	ConditionCompartmentID:            {"COMPARTMENT_ID", fwp.Uint32},
	ConditionALEReauthReason:          {"ALE_REAUTH_REASON", fwp.Uint32},
}

func (c ConditionID) String() string {
	if c > 0 && c < numConditions {
		return conditions[c].name
	}
	return fmt.Sprintf("ConditionID(%d)", uint8(c))
}

// DataType is the type of the field at a layer: addresses are FWP_UINT32 at V4
// layers and FWP_BYTE_ARRAY16 at V6 ones.
func (c ConditionID) DataType(l LayerID) fwp.DataType {
	if c == 0 || c >= numConditions {
		return fwp.Empty
	}
	if c == ConditionIPLocalAddress || c == ConditionIPRemoteAddress {
		if l.IsV6() {
			return fwp.ByteArray16
		}
		return fwp.Uint32
	}
	return conditions[c].typ
}

// ParseCondition returns the field of a name that String prints.
func ParseCondition(name string) (ConditionID, bool) {
	for i := ConditionID(1); i < numConditions; i++ {
		if conditions[i].name == name {
			return i, true
		}
	}
	return 0, false
}

type layerInfo struct {
	name   string
	v6     bool
	fields []ConditionID
}

var (
	connectFields = []ConditionID{ConditionALEAppID, ConditionALEUserID, ConditionIPLocalAddress,
		ConditionIPLocalAddressType, ConditionIPLocalPort, ConditionIPProtocol, ConditionIPRemoteAddress,
		ConditionIPDestinationAddressType, ConditionIPRemotePort, ConditionFlags, ConditionALEOriginalAppID,
		ConditionCompartmentID}
	authConnectFields = append(append([]ConditionID(nil), connectFields...), ConditionALEReauthReason)
	recvAcceptFields  = []ConditionID{ConditionALEAppID, ConditionALEUserID, ConditionIPLocalAddress,
		ConditionIPLocalAddressType, ConditionIPLocalPort, ConditionIPProtocol, ConditionIPRemoteAddress,
		ConditionIPRemotePort, ConditionFlags, ConditionCompartmentID, ConditionALEReauthReason}
	flowFields    = append(append([]ConditionID(nil), connectFields...), ConditionDirection)
	closureFields = []ConditionID{ConditionALEAppID, ConditionALEUserID, ConditionIPLocalAddress,
		ConditionIPLocalAddressType, ConditionIPLocalPort, ConditionIPProtocol, ConditionIPRemoteAddress,
		ConditionIPRemotePort, ConditionFlags, ConditionCompartmentID}

	layers = map[LayerID]layerInfo{
		LayerALEAuthRecvAcceptV4:  {"ALE_AUTH_RECV_ACCEPT_V4", false, recvAcceptFields},
		LayerALEAuthRecvAcceptV6:  {"ALE_AUTH_RECV_ACCEPT_V6", true, recvAcceptFields},
		LayerALEAuthConnectV4:     {"ALE_AUTH_CONNECT_V4", false, authConnectFields},
		LayerALEAuthConnectV6:     {"ALE_AUTH_CONNECT_V6", true, authConnectFields},
		LayerALEFlowEstablishedV4: {"ALE_FLOW_ESTABLISHED_V4", false, flowFields},
		LayerALEFlowEstablishedV6: {"ALE_FLOW_ESTABLISHED_V6", true, flowFields},
		LayerALEEndpointClosureV4: {"ALE_ENDPOINT_CLOSURE_V4", false, closureFields},
		LayerALEEndpointClosureV6: {"ALE_ENDPOINT_CLOSURE_V6", true, closureFields},
		LayerALEConnectRedirectV4: {"ALE_CONNECT_REDIRECT_V4", false, connectFields},
		LayerALEConnectRedirectV6: {"ALE_CONNECT_REDIRECT_V6", true, connectFields},
	}
)

// Layers lists every layer, in the order of their identifiers.
func Layers() []LayerID {
	return []LayerID{LayerALEAuthRecvAcceptV4, LayerALEAuthRecvAcceptV6, LayerALEAuthConnectV4, LayerALEAuthConnectV6,
		LayerALEFlowEstablishedV4, LayerALEFlowEstablishedV6, LayerALEEndpointClosureV4, LayerALEEndpointClosureV6,
		LayerALEConnectRedirectV4, LayerALEConnectRedirectV6}
}

// Valid reports whether l is a layer of this engine.
func (l LayerID) Valid() bool { _, ok := layers[l]; return ok }

// IsV6 reports whether the layer's addresses are IPv6.
func (l LayerID) IsV6() bool {
	switch l {
	case LayerALEAuthRecvAcceptV6, LayerALEAuthConnectV6, LayerALEFlowEstablishedV6, LayerALEEndpointClosureV6, LayerALEConnectRedirectV6:
		return true
	}
	return false
}

// IsConnectRedirect reports whether callouts may redirect at l.
func (l LayerID) IsConnectRedirect() bool {
	return l == LayerALEConnectRedirectV4 || l == LayerALEConnectRedirectV6
}

// ForFamily returns the V4 or V6 twin of l.
func (l LayerID) ForFamily(v6 bool) LayerID {
	if l.IsV6() == v6 {
		return l
	}
	d := LayerID(2)
	if l == LayerALEEndpointClosureV4 || l == LayerALEEndpointClosureV6 || l.IsConnectRedirect() {
		d = 1
	}
	if v6 {
		return l + d
	}
	return l - d
}

func (l LayerID) String() string {
	if i, ok := layers[l]; ok {
		return i.name
	}
	return fmt.Sprintf("LayerID(%d)", uint16(l))
}

// Fields lists the condition fields the layer offers. The caller must not
// modify the result.
func (l LayerID) Fields() []ConditionID { return layers[l].fields }

// ParseLayer returns the layer of a name that String prints.
func ParseLayer(name string) (LayerID, bool) {
	for id, i := range layers {
		if i.name == name {
			return id, true
		}
	}
	return 0, false
}
