package wsk

import (
	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/transport"
)

// Control codes of ws2def.h, mstcpip.h and wsk.h (WSK-CTL-10).
const (
	SIOAddressListQuery         uint32 = 0x48000016 // SIO_ADDRESS_LIST_QUERY
	SIOAddressListChange        uint32 = 0x28000017 // SIO_ADDRESS_LIST_CHANGE
	SIOAddressListSort          uint32 = 0xC8000019 // SIO_ADDRESS_LIST_SORT
	SIOLoopbackFastPath         uint32 = 0x98000010 // SIO_LOOPBACK_FAST_PATH
	SIOKeepAliveVals            uint32 = 0x98000004 // SIO_KEEPALIVE_VALS
	SIOWSKSetRemoteAddress      uint32 = 0x8F000001 // SIO_WSK_SET_REMOTE_ADDRESS
	SIOWSKRegisterExtension     uint32 = 0xCF000002 // SIO_WSK_REGISTER_EXTENSION
	SIOWSKQueryIdealSendBacklog uint32 = 0x4F000003 // SIO_WSK_QUERY_IDEAL_SEND_BACKLOG
	SIOWSKQueryReceiveBacklog   uint32 = 0x4F000004 // SIO_WSK_QUERY_RECEIVE_BACKLOG
	SIOWSKQueryInspectID        uint32 = 0x4F000005 // SIO_WSK_QUERY_INSPECT_ID
	SIOWSKSetSendToAddress      uint32 = 0x8F000006 // SIO_WSK_SET_SENDTO_ADDRESS
	SIOWSKSetTCPSilentMode      uint32 = 0x2F000007 // SIO_WSK_SET_TCP_SILENT_MODE
)

// ioctls are the codes of WskIoctl.
var ioctls = map[uint32]*control{
	SIOQueryWFPConnectionRedirectRecords: {name: "SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS", on: connects | DatagramSocket, run: (*Socket).queryRedirect},
	SIOQueryWFPConnectionRedirectContext: {name: "SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT", on: connects | DatagramSocket, run: (*Socket).queryRedirect},
	SIOSetWFPConnectionRedirectRecords:   {name: "SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS", on: connects | DatagramSocket, run: (*Socket).setRedirect},
	SIOSetPeerTargetName:                 {name: "SIO_SET_PEER_TARGET_NAME", on: connects, run: (*Socket).setPeerTargetName},
	SIODeletePeerTargetName:              {name: "SIO_DELETE_PEER_TARGET_NAME", on: connects, run: (*Socket).setPeerTargetName},
	SIOQueryWFPALEEndpointHandle:         {name: "SIO_QUERY_WFP_ALE_ENDPOINT_HANDLE", irp: irpOptional, on: allSockets, sized: true, run: (*Socket).queryEndpointHandle},

	SIOAddressListQuery:  {name: "SIO_ADDRESS_LIST_QUERY", irp: irpForbidden, on: allSockets, sized: true, run: (*Socket).queryAddressList},
	SIOAddressListChange: {name: "SIO_ADDRESS_LIST_CHANGE", on: allSockets, wait: (*Socket).awaitAddressChange},
	SIOAddressListSort:   {name: "SIO_ADDRESS_LIST_SORT", irp: irpOptional, on: allSockets, sized: true, run: (*Socket).sortAddressList},
	SIOLoopbackFastPath:  {name: "SIO_LOOPBACK_FAST_PATH", on: connects | listens, run: (*Socket).setLoopbackFastPath},
	SIOKeepAliveVals:     {name: "SIO_KEEPALIVE_VALS", on: connects, run: (*Socket).setKeepAliveVals},

	SIOWSKQueryIdealSendBacklog: {name: "SIO_WSK_QUERY_IDEAL_SEND_BACKLOG", on: connects, run: (*Socket).queryIdealSendBacklog},
	SIOWSKQueryReceiveBacklog:   {name: "SIO_WSK_QUERY_RECEIVE_BACKLOG", on: connects, run: (*Socket).queryReceiveBacklog},
	SIOWSKSetTCPSilentMode:      {name: "SIO_WSK_SET_TCP_SILENT_MODE", on: connects, run: (*Socket).setSilentMode},
	SIOWSKQueryInspectID:        {name: "SIO_WSK_QUERY_INSPECT_ID", irp: irpForbidden, on: connects, run: (*Socket).queryInspectID},
	SIOWSKRegisterExtension:     {name: "SIO_WSK_REGISTER_EXTENSION", irp: irpForbidden, on: allSockets, run: (*Socket).registerExtension},
	SIOWSKSetRemoteAddress:      {name: "SIO_WSK_SET_REMOTE_ADDRESS", on: DatagramSocket, wait: (*Socket).setRemoteAddress},
	SIOWSKSetSendToAddress:      {name: "SIO_WSK_SET_SENDTO_ADDRESS", on: DatagramSocket, run: (*Socket).setSendToAddress},
}

// queryEndpointHandle answers SIO_QUERY_WFP_ALE_ENDPOINT_HANDLE: the UINT64
// that classifications of the socket show (REL-03).
func (s *Socket) queryEndpointHandle(_ uint32, _, out []byte) (ntstatus.Status, int) {
	return putSize(out, s.endpointID())
}

// setLoopbackFastPath answers SIO_LOOPBACK_FAST_PATH. No system has the path
// that Windows once had.
func (s *Socket) setLoopbackFastPath(_ uint32, in, _ []byte) (ntstatus.Status, int) {
	if len(in) != 4 {
		return ntstatus.InvalidBufferSize, 0
	}
	return ntstatus.NotSupported, 0
}

// defaultBacklog is the ideal send backlog where the system does not tell its
// own, 64 KiB as in Windows.
const defaultBacklog = 64 << 10

func idealBacklog(conn *transport.Conn) int {
	if n := transport.SendBuffer(conn); n > 0 {
		return n
	}
	return defaultBacklog
}

func (s *Socket) queryIdealSendBacklog(_ uint32, _, out []byte) (ntstatus.Status, int) {
	if s.state != connected {
		return ntstatus.InvalidDeviceState, 0
	}
	return putSize(out, uint64(idealBacklog(s.conn)))
}

// tellBacklog runs WskSendBacklogEvent if the ideal backlog has changed.
func (s *Socket) tellBacklog(conn *transport.Conn) {
	s.mu.Lock()
	d, on := s.connectionDispatch(), s.events.enabled&EventSendBacklog != 0
	s.mu.Unlock()
	if !on {
		return
	}
	ideal := idealBacklog(conn)
	s.mu.Lock()
	changed := ideal != s.ideal
	s.ideal = ideal
	s.mu.Unlock()
	if changed {
		s.event(EventSendBacklog, func() { d.SendBacklogEvent(s.context, ideal) })
	}
}

func (s *Socket) queryReceiveBacklog(_ uint32, _, out []byte) (ntstatus.Status, int) {
	if s.state != connected {
		return ntstatus.InvalidDeviceState, 0
	}
	return putSize(out, uint64(len(s.in.unread)+s.in.held+transport.Unread(s.conn)))
}

// setSilentMode answers SIO_WSK_SET_TCP_SILENT_MODE: nothing more is sent. Only
// the reset at the end is the system's own.
func (s *Socket) setSilentMode(_ uint32, _, _ []byte) (ntstatus.Status, int) {
	if s.state != connected {
		return ntstatus.InvalidDeviceState, 0
	}
	s.finAsked = true // Send and Disconnect are refused from now on.
	return ntstatus.Success, 0
}

// registerExtension answers SIO_WSK_REGISTER_EXTENSION. There are no extensions.
func (s *Socket) registerExtension(_ uint32, in, _ []byte) (ntstatus.Status, int) {
	const extensionControlIn = 24 // sizeof(WSK_EXTENSION_CONTROL_IN)
	if len(in) != extensionControlIn {
		return ntstatus.InvalidParameter, 0
	}
	return ntstatus.NotSupported, 0
}
