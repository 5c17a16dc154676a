package fwpm

import (
	"fmt"

	"github.com/calloutd/calloutd/host/fwp"
)

//go:generate go run gen.go

// LayerID is the run-time identifier of a layer, FWPS_LAYER_* (ALE-LAY-01).
type LayerID uint16

// NumLayers is one more than the highest LayerID, for tables indexed by layer.
const NumLayers = 70

type layerInfo struct {
	name, guid string
	v6         bool
	fields     []ConditionID // by their FWPS_FIELD_* index, reserved ones left out
	flags      fwp.ConditionFlags
	metadata   Metadata
}

// Layers lists every layer, in the order of their identifiers. The caller must
// not modify the result.
func Layers() []LayerID { return layerOrder }

func (l LayerID) info() *layerInfo {
	if int(l) < len(layers) {
		return &layers[l]
	}
	return &layers[0]
}

// Valid reports whether l is a layer of this engine.
func (l LayerID) Valid() bool { return l.info().name != "" }

// IsV6 reports whether the layer's addresses are IPv6.
func (l LayerID) IsV6() bool { return l.info().v6 }

// GUID is the layer's key in fwpmu.h.
func (l LayerID) GUID() string { return l.info().guid }

// IsConnectRedirect reports whether callouts may change where a connection goes.
func (l LayerID) IsConnectRedirect() bool {
	return l == LayerALEConnectRedirectV4 || l == LayerALEConnectRedirectV6
}

// IsBindRedirect reports whether callouts may change what a socket binds to.
func (l LayerID) IsBindRedirect() bool {
	return l == LayerALEBindRedirectV4 || l == LayerALEBindRedirectV6
}

// HasDiscard reports whether l has a DISCARD twin: whether what it blocks is
// indicated, audited and told of as a net event (ALE-LAY-01, AMB-45).
func (l LayerID) HasDiscard() bool { return l.Valid() && l < LayerALEResourceReleaseV4 }

// CanPendClassify reports whether FwpsPendClassify0 works at l (CH-09).
func (l LayerID) CanPendClassify() bool {
	return l.IsConnectRedirect() || l.IsBindRedirect() || l == LayerALEEndpointClosureV4 || l == LayerALEEndpointClosureV6
}

// CanPendOperation reports whether FwpsPendOperation0 works at l (CH-14).
func (l LayerID) CanPendOperation() bool {
	switch l {
	case LayerALEResourceAssignmentV4, LayerALEResourceAssignmentV6, LayerALEAuthListenV4, LayerALEAuthListenV6,
		LayerALEAuthConnectV4, LayerALEAuthConnectV6, LayerALEAuthRecvAcceptV4, LayerALEAuthRecvAcceptV6:
		return true
	}
	return false
}

// ForFamily returns the V4 or V6 twin of l.
func (l LayerID) ForFamily(v6 bool) LayerID {
	if l.IsV6() == v6 {
		return l
	}
	d := LayerID(2)
	if l >= LayerALEResourceReleaseV4 { // These have no DISCARD twin in between.
		d = 1
	}
	if v6 {
		return l + d
	}
	return l - d
}

func (l LayerID) String() string {
	if n := l.info().name; n != "" {
		return n
	}
	return fmt.Sprintf("LayerID(%d)", uint16(l))
}

// Fields lists the condition fields the layer offers. The caller must not
// modify the result.
func (l LayerID) Fields() []ConditionID { return l.info().fields }

// Offers reports whether the layer has the field.
func (l LayerID) Offers(c ConditionID) bool { return int(l) < len(offered) && offered[l]&(1<<c) != 0 }

// Flags are the condition flags that can be set at l (BFE-CND-09).
func (l LayerID) Flags() fwp.ConditionFlags { return l.info().flags }

// Metadata are the fields of FWPS_INCOMING_METADATA_VALUES that l can have.
func (l LayerID) Metadata() Metadata { return l.info().metadata }

// offered has the fields of each layer as bits.
var offered = func() (bits [NumLayers]uint64) {
	for _, l := range layerOrder {
		for _, c := range layers[l].fields {
			bits[l] |= 1 << c
		}
	}
	return bits
}()

// ParseLayer returns the layer of a name that String prints.
func ParseLayer(name string) (LayerID, bool) {
	for _, l := range layerOrder {
		if layers[l].name == name {
			return l, true
		}
	}
	return 0, false
}
