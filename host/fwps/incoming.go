// Package fwps holds what passes through a classification: the FWPS_ names of
// fwpstypes.h and fwpsk.h.
//
// Callers own every value and use it again: Incoming, Call, Verdict and Decision
// are filled in place, so that a classification allocates nothing.
package fwps

import (
	"net/netip"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/redirect"
)

// IP protocols that the layers see.
const (
	ProtocolICMP   uint8 = 1
	ProtocolTCP    uint8 = 6
	ProtocolUDP    uint8 = 17
	ProtocolICMPv6 uint8 = 58
)

// Incoming is FWPS_INCOMING_VALUES with FWPS_INCOMING_METADATA_VALUES: what is
// known about an operation when a layer is asked. A zero address or empty text
// is FWP_EMPTY, and so is every field that the layer does not have. Nobody
// modifies it during a classification.
type Incoming struct {
	Layer         fwpm.LayerID
	Protocol      uint8
	Inbound       bool           // FWPM_CONDITION_DIRECTION
	Local, Remote netip.AddrPort // for ICMP the ports are its type and code (ALE-FLD-01)
	// Flags may have more than the layer knows; what it does not know is not seen.
	Flags             fwp.ConditionFlags
	AppID             string   // ALE_APP_ID: the path of the program
	OriginalAppID     string   // ALE_ORIGINAL_APP_ID (ALE-FLD-05)
	UserID            uint32   // ALE_USER_ID: the numeric user
	Groups            []uint32 // the user's groups, if known
	UserKnown         bool     // whether UserID is known; zero is root
	CompartmentID     uint32
	ReauthorizeReason fwp.ReauthorizeReason
	// Other has the fields that have no member here: interfaces, profiles, names.
	Other map[fwpm.ConditionID]fwp.Value
	// PeerNames is all that the remote address is called, where more is known than
	// PEER_NAME. Nil otherwise.
	PeerNames *PeerNames

	ProcessID        uint32 // FWPS_METADATA_FIELD_PROCESS_ID
	EndpointID       uint64 // FWPS_METADATA_FIELD_TRANSPORT_ENDPOINT_HANDLE
	ParentEndpointID uint64 // FWPS_METADATA_FIELD_PARENT_ENDPOINT_HANDLE
	Flow             *Flow  // FWPS_METADATA_FIELD_FLOW_HANDLE; nil where no flow is known yet (CO-FLW-04)

	// Records is the REDIRECT_RECORD_HANDLE: set on the socket by its owner.
	Records redirect.Records
	// OriginalDestination and LocalRedirectTargetPID are present when Flags
	// has FlagIsConnectionRedirected (ALE-META-03).
	OriginalDestination    netip.AddrPort
	LocalRedirectTargetPID uint32
	// HeaderInclude is a raw socket that writes its own IP headers (ALE-LAY-09).
	HeaderInclude bool
	// Pending can say what the records would be if the asking callout redirected.
	// Nil except at CONNECT_REDIRECT.
	Pending PendingRecords
}

// PendingRecords are the records of a connection that is held at CONNECT_REDIRECT.
type PendingRecords interface {
	// Format returns the sealed records with the entry that a redirect by h would add.
	Format(h redirect.Handle) ([]byte, error)
}

// PeerNames are the names of an address. They are never changed. PEER_NAME is the newest; a
// filter that blocks by PEER_NAME is met by any of them, since none of them is more the
// address's than the others, and who asks for another one is not to get past it so.
type PeerNames struct {
	Names []string // the newest first
	// Forgotten says that there may be others, for which there was no room. A filter that
	// blocks by a name is met.
	Forgotten bool
}

// Client is the host that connects, where that is another one: a gateway knows its address,
// and no process. For a proxy's own connection it is the host that was redirected to the
// proxy. Not valid: a program of this host.
func (in *Incoming) Client() netip.Addr {
	if h := in.Records.Last(); h != nil {
		return h.Client
	}
	if a := in.Local.Addr().Unmap(); in.ProcessID == 0 && !in.Inbound && !a.IsUnspecified() {
		return a
	}
	return netip.Addr{}
}

// ConditionFlags are the flags that the layer sees.
func (in *Incoming) ConditionFlags() fwp.ConditionFlags { return in.Flags & in.Layer.Flags() }

// Metadata is currentMetadataValues: which metadata the layer has here
// (ALE-META-01..05).
func (in *Incoming) Metadata() fwpm.Metadata {
	m := fwpm.MetadataReserved | fwpm.MetadataCompartmentID | fwpm.MetadataPacketDirection
	set := func(known bool, bits fwpm.Metadata) {
		if known {
			m |= bits
		}
	}
	redirected := in.Flags&fwp.FlagIsConnectionRedirected != 0
	set(in.ProcessID != 0, fwpm.MetadataProcessID)
	set(in.AppID != "", fwpm.MetadataProcessPath)
	set(in.UserKnown, fwpm.MetadataToken)
	set(in.EndpointID != 0, fwpm.MetadataTransportEndpointHandle)
	set(in.ParentEndpointID != 0, fwpm.MetadataParentEndpointHandle)
	set(in.Flow != nil, fwpm.MetadataFlowHandle)
	set(in.Layer.CanPendOperation() && in.Flags&fwp.FlagIsReauthorize == 0, fwpm.MetadataCompletionHandle)
	set(in.Protocol == ProtocolICMP || in.Protocol == ProtocolICMPv6, fwpm.MetadataICMPIDAndSequence)
	set(in.Remote.Addr().Zone() != "", fwpm.MetadataRemoteScopeID)
	set(len(in.Records) > 0, fwpm.MetadataRedirectRecordHandle)
	set(redirected, fwpm.MetadataOriginalDestination|fwpm.MetadataLocalRedirectTargetPID)
	return m & in.Layer.Metadata()
}

// Field is the value of a condition field at the layer, FWP_EMPTY when the layer
// does not have it or its value is not known (BFE-CND-06).
func (in *Incoming) Field(c fwpm.ConditionID) fwp.Value {
	if !in.Layer.Offers(c) {
		return fwp.Value{}
	}
	switch c {
	case fwpm.ConditionALEUserID:
		return in.token()
	case fwpm.ConditionIPLocalAddress, fwpm.ConditionIPRemoteAddress:
		if a, ok := in.Address(c); ok {
			return fwp.Addr(a)
		}
		return fwp.Value{}
	}
	switch t := c.DataType(in.Layer); {
	case t == fwp.ByteBlob:
		if s, ok := in.Text(c); ok {
			return fwp.Blob(s)
		}
		return fwp.Value{}
	case t.Unsigned():
		if n, ok := in.Number(c); ok {
			return fwp.Value{Type: t, Uint: n}
		}
		return fwp.Value{}
	}
	return in.Other[c]
}

func (in *Incoming) token() fwp.Value {
	if !in.UserKnown {
		return fwp.Value{}
	}
	t := &fwp.Token{User: fwp.UserSID(in.UserID)}
	for _, g := range in.Groups {
		t.Groups = append(t.Groups, fwp.GroupSID(g))
	}
	return fwp.Value{Type: fwp.TokenAccessInformation, Token: t}
}

// Address is one of the two addresses, false when it is not known or not of the
// layer's family. The unspecified address of a bind is FWP_EMPTY at
// RESOURCE_ASSIGNMENT (ALE-LAY-06).
func (in *Incoming) Address(c fwpm.ConditionID) (netip.Addr, bool) {
	a := in.Remote.Addr()
	if c == fwpm.ConditionIPLocalAddress {
		if a = in.Local.Addr(); in.assigning() && a.IsUnspecified() {
			return a, false
		}
	}
	return a, a.IsValid() && a.Is4() != in.Layer.IsV6()
}

func (in *Incoming) assigning() bool {
	return in.Layer == fwpm.LayerALEResourceAssignmentV4 || in.Layer == fwpm.LayerALEResourceAssignmentV6
}

// Text is a field of text, false when it is not known. The layer is not asked.
func (in *Incoming) Text(c fwpm.ConditionID) (string, bool) {
	switch c {
	case fwpm.ConditionALEAppID:
		return in.AppID, in.AppID != ""
	case fwpm.ConditionALEOriginalAppID:
		return in.OriginalAppID, in.OriginalAppID != ""
	}
	v, ok := in.Other[c]
	return v.Text, ok && v.Type != fwp.Empty
}

// Number is a field that is an unsigned integer, an IPv4 address among them;
// false when it is not known. The layer is not asked.
func (in *Incoming) Number(c fwpm.ConditionID) (uint64, bool) {
	switch c {
	case fwpm.ConditionIPLocalAddress, fwpm.ConditionIPRemoteAddress:
		a, ok := in.Address(c)
		return v4(a), ok && a.Is4()
	case fwpm.ConditionIPLocalPort:
		return uint64(in.Local.Port()), in.Local.IsValid()
	case fwpm.ConditionIPRemotePort:
		return uint64(in.Remote.Port()), in.Remote.IsValid()
	case fwpm.ConditionIPProtocol:
		return uint64(in.Protocol), true
	case fwpm.ConditionFlags:
		return uint64(in.ConditionFlags()), true
	case fwpm.ConditionDirection:
		if in.Inbound {
			return 1, true // FWP_DIRECTION_INBOUND
		}
		return 0, true // FWP_DIRECTION_OUTBOUND
	case fwpm.ConditionIPLocalAddressType:
		return addressType(in.Local.Addr())
	case fwpm.ConditionIPDestinationAddressType:
		return addressType(in.Remote.Addr())
	case fwpm.ConditionCompartmentID:
		return uint64(in.CompartmentID), true
	case fwpm.ConditionReauthorizeReason:
		return uint64(in.ReauthorizeReason), true
	}
	v, ok := in.Other[c]
	return v.Uint, ok && v.Type != fwp.Empty
}

// v4 is an IPv4 address in host byte order (ALE-FLD-04), 0 for others.
func v4(a netip.Addr) uint64 {
	if !a.Is4() {
		return 0
	}
	b := a.As4()
	return uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3])
}

// addressType is NL_ADDRESS_TYPE: unspecified 0, unicast 1, anycast 2,
// multicast 3, broadcast 4. Which address is anycast no system tells.
func addressType(a netip.Addr) (uint64, bool) {
	switch {
	case !a.IsValid():
		return 0, false
	case a.IsUnspecified():
		return 0, true
	case a.IsMulticast():
		return 3, true
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return 4, true
	}
	return 1, true
}
