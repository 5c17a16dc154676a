package wsk

import (
	"net/netip"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// Dispatch is a client's table of event callbacks for one category of sockets:
// a *ClientListenDispatch, *ClientConnectionDispatch, *ClientDatagramDispatch
// or *ClientStreamDispatch. A nil func is NULL. Callbacks start disabled
// (WSK-CAT-05).
type Dispatch interface{ category() Category }

// ClientListenDispatch is WSK_CLIENT_LISTEN_DISPATCH.
type ClientListenDispatch struct {
	// AcceptEvent is WskAcceptEvent. It accepts with STATUS_SUCCESS and the
	// context and table for the new socket, or drops the connection with
	// STATUS_REQUEST_NOT_ACCEPTED.
	AcceptEvent func(socketContext any, flags uint32, local, remote netip.AddrPort, accepted *Socket) (any, *ClientConnectionDispatch, ntstatus.Status)
	// InspectEvent is WskInspectEvent, for a socket with SO_CONDITIONAL_ACCEPT.
	InspectEvent func(socketContext any, local, remote netip.AddrPort, id InspectID) InspectAction
	// AbortEvent is WskAbortEvent: a connection that was pended is gone.
	AbortEvent func(socketContext any, id InspectID) ntstatus.Status
}

// ClientConnectionDispatch is WSK_CLIENT_CONNECTION_DISPATCH.
type ClientConnectionDispatch struct {
	// ReceiveEvent is WskReceiveEvent. A nil indication says that the socket is
	// dead. It takes the data with STATUS_SUCCESS, keeps it until Release with
	// STATUS_PENDING, or leaves it for Receive with STATUS_DATA_NOT_ACCEPTED.
	// accepted, preset to all, is how many bytes STATUS_SUCCESS took.
	ReceiveEvent func(socketContext any, flags uint32, data *DataIndication, indicated int, accepted *int) ntstatus.Status
	// DisconnectEvent is WskDisconnectEvent: the peer has disconnected, with
	// FlagAbortive if by a reset.
	DisconnectEvent func(socketContext any, flags uint32) ntstatus.Status
	// SendBacklogEvent is WskSendBacklogEvent: the ideal number of bytes in
	// flight has changed.
	SendBacklogEvent func(socketContext any, ideal int) ntstatus.Status
}

// ClientDatagramDispatch is WSK_CLIENT_DATAGRAM_DISPATCH.
type ClientDatagramDispatch struct {
	// ReceiveFromEvent is WskReceiveFromEvent, with the statuses of ReceiveEvent.
	ReceiveFromEvent func(socketContext any, flags uint32, data *DatagramIndication) ntstatus.Status
}

// ClientStreamDispatch is WSK_CLIENT_STREAM_DISPATCH.
type ClientStreamDispatch struct {
	Listen  *ClientListenDispatch
	Connect *ClientConnectionDispatch
}

func (*ClientListenDispatch) category() Category     { return ListenSocket }
func (*ClientConnectionDispatch) category() Category { return ConnectionSocket }
func (*ClientDatagramDispatch) category() Category   { return DatagramSocket }
func (*ClientStreamDispatch) category() Category     { return StreamSocket }

// DataIndication is WSK_DATA_INDICATION: received data that WSK owns.
type DataIndication struct {
	Next   *DataIndication
	Buffer []byte
}

// DatagramIndication is WSK_DATAGRAM_INDICATION: received datagrams that WSK owns.
type DatagramIndication struct {
	Next    *DatagramIndication
	Buffer  []byte
	Control []ControlMessage
	Remote  netip.AddrPort
}
