package wsk

// AddressFamily is ADDRESS_FAMILY.
type AddressFamily uint16

// The families, with the numbers of Windows on every system.
const (
	AFUnspec AddressFamily = 0  // AF_UNSPEC
	AFInet   AddressFamily = 2  // AF_INET
	AFInet6  AddressFamily = 23 // AF_INET6
)

// SocketType is the type of a socket.
type SocketType uint16

// The types.
const (
	SockStream SocketType = 1 // SOCK_STREAM
	SockDgram  SocketType = 2 // SOCK_DGRAM
	SockRaw    SocketType = 3 // SOCK_RAW
)

// Protocol is an IPPROTO.
type Protocol uint32

// The protocols.
const (
	IPProtoIP   Protocol = 0  // IPPROTO_IP
	IPProtoTCP  Protocol = 6  // IPPROTO_TCP
	IPProtoUDP  Protocol = 17 // IPPROTO_UDP
	IPProtoIPv6 Protocol = 41 // IPPROTO_IPV6
)

// Category is the Flags argument of WskSocket. Categories are alternatives and
// cannot be combined (WSK-CAT-04).
type Category uint32

// The categories.
const (
	BasicSocket      Category = 0 // WSK_FLAG_BASIC_SOCKET
	ListenSocket     Category = 1 // WSK_FLAG_LISTEN_SOCKET
	ConnectionSocket Category = 2 // WSK_FLAG_CONNECTION_SOCKET
	DatagramSocket   Category = 4 // WSK_FLAG_DATAGRAM_SOCKET
	StreamSocket     Category = 8 // WSK_FLAG_STREAM_SOCKET
)

// An operation is an entry of a provider's dispatch table.
type operation uint8

const (
	opControlSocket operation = iota
	opCloseSocket
	opBind
	opListen
	opAccept
	opInspectComplete
	opConnect
	opGetLocalAddress
	opGetRemoteAddress
	opSend
	opReceive
	opDisconnect
	opRelease
	opConnectEx
	opSendEx
	opReceiveEx
	opSendTo
	opReceiveFrom
	opSendMessages
)

type operations uint32

func ops(list ...operation) (o operations) {
	for _, op := range list {
		o |= 1 << op
	}
	return o
}

func (o operations) has(op operation) bool { return o&(1<<op) != 0 }

type categoryInfo struct {
	typ SocketType // that it needs; zero: any
	ops operations
}

var (
	basicOps  = ops(opControlSocket, opCloseSocket)
	listenOps = ops(opAccept, opInspectComplete)
	connOps   = ops(opConnect, opGetRemoteAddress, opSend, opReceive, opDisconnect, opRelease, opConnectEx, opSendEx, opReceiveEx)

	// categories are the provider's dispatch tables (WSK-CAT-01).
	categories = map[Category]categoryInfo{
		BasicSocket:      {0, basicOps},
		ListenSocket:     {SockStream, basicOps | listenOps | ops(opBind, opGetLocalAddress)},
		ConnectionSocket: {SockStream, basicOps | connOps | ops(opBind, opGetLocalAddress)},
		DatagramSocket:   {SockDgram, basicOps | ops(opBind, opSendTo, opReceiveFrom, opRelease, opGetLocalAddress, opSendMessages)},
		StreamSocket:     {SockStream, basicOps | connOps | ops(opBind, opAccept, opListen, opGetLocalAddress)},
	}

	// What a stream socket loses with its role (WSK-CAT-03).
	lostByListening  = connOps
	lostByConnecting = ops(opAccept, opListen)
)
