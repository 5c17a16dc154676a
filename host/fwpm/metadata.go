package fwpm

import "strings"

// Metadata is a set of FWPS_METADATA_FIELD_* bits: which members of
// FWPS_INCOMING_METADATA_VALUES are valid (ALE-META-04).
type Metadata uint32

// The metadata fields of the ALE layers, by the bits of fwpsk.h.
const (
	MetadataFlowHandle              Metadata = 0x00000002 // FWPS_METADATA_FIELD_FLOW_HANDLE
	MetadataIPHeaderSize            Metadata = 0x00000004 // FWPS_METADATA_FIELD_IP_HEADER_SIZE
	MetadataProcessPath             Metadata = 0x00000008 // FWPS_METADATA_FIELD_PROCESS_PATH
	MetadataToken                   Metadata = 0x00000010 // FWPS_METADATA_FIELD_TOKEN
	MetadataProcessID               Metadata = 0x00000020 // FWPS_METADATA_FIELD_PROCESS_ID
	MetadataReserved                Metadata = 0x00000080 // FWPS_METADATA_FIELD_RESERVED
	MetadataTransportHeaderSize     Metadata = 0x00000400 // FWPS_METADATA_FIELD_TRANSPORT_HEADER_SIZE
	MetadataCompartmentID           Metadata = 0x00000800 // FWPS_METADATA_FIELD_COMPARTMENT_ID
	MetadataCompletionHandle        Metadata = 0x00004000 // FWPS_METADATA_FIELD_COMPLETION_HANDLE
	MetadataTransportEndpointHandle Metadata = 0x00008000 // FWPS_METADATA_FIELD_TRANSPORT_ENDPOINT_HANDLE
	MetadataRemoteScopeID           Metadata = 0x00020000 // FWPS_METADATA_FIELD_REMOTE_SCOPE_ID
	MetadataPacketDirection         Metadata = 0x00040000 // FWPS_METADATA_FIELD_PACKET_DIRECTION
	MetadataParentEndpointHandle    Metadata = 0x04000000 // FWPS_METADATA_FIELD_PARENT_ENDPOINT_HANDLE
	MetadataICMPIDAndSequence       Metadata = 0x08000000 // FWPS_METADATA_FIELD_ICMP_ID_AND_SEQUENCE
	MetadataLocalRedirectTargetPID  Metadata = 0x10000000 // FWPS_METADATA_FIELD_LOCAL_REDIRECT_TARGET_PID
	MetadataOriginalDestination     Metadata = 0x20000000 // FWPS_METADATA_FIELD_ORIGINAL_DESTINATION
	MetadataRedirectRecordHandle    Metadata = 0x40000000 // FWPS_METADATA_FIELD_REDIRECT_RECORD_HANDLE
	MetadataSubProcessTag           Metadata = 0x80000000 // FWPS_METADATA_FIELD_SUB_PROCESS_TAG
)

var metadataNames = []struct {
	bit  Metadata
	name string
}{
	{MetadataFlowHandle, "FLOW_HANDLE"}, {MetadataIPHeaderSize, "IP_HEADER_SIZE"}, {MetadataProcessPath, "PROCESS_PATH"},
	{MetadataToken, "TOKEN"}, {MetadataProcessID, "PROCESS_ID"}, {MetadataReserved, "RESERVED"},
	{MetadataTransportHeaderSize, "TRANSPORT_HEADER_SIZE"}, {MetadataCompartmentID, "COMPARTMENT_ID"},
	{MetadataCompletionHandle, "COMPLETION_HANDLE"}, {MetadataTransportEndpointHandle, "TRANSPORT_ENDPOINT_HANDLE"},
	{MetadataRemoteScopeID, "REMOTE_SCOPE_ID"}, {MetadataPacketDirection, "PACKET_DIRECTION"},
	{MetadataParentEndpointHandle, "PARENT_ENDPOINT_HANDLE"}, {MetadataICMPIDAndSequence, "ICMP_ID_AND_SEQUENCE"},
	{MetadataLocalRedirectTargetPID, "LOCAL_REDIRECT_TARGET_PID"}, {MetadataOriginalDestination, "ORIGINAL_DESTINATION"},
	{MetadataRedirectRecordHandle, "REDIRECT_RECORD_HANDLE"}, {MetadataSubProcessTag, "SUB_PROCESS_TAG"},
}

// Names lists the set, without the FWPS_METADATA_FIELD_ prefix, by bit.
func (m Metadata) Names() []string {
	var names []string
	for _, n := range metadataNames {
		if m&n.bit != 0 {
			names = append(names, n.name)
		}
	}
	return names
}

func (m Metadata) String() string { return strings.Join(m.Names(), "|") }
