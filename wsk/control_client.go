package wsk

import (
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// Codes of ControlClient (WSK-REG-09).
const (
	TransportListQuery      uint32 = 2 // WSK_TRANSPORT_LIST_QUERY
	TransportListChange     uint32 = 3 // WSK_TRANSPORT_LIST_CHANGE
	CacheSD                 uint32 = 4 // WSK_CACHE_SD
	ReleaseSD               uint32 = 5 // WSK_RELEASE_SD
	TDIDeviceNameMapping    uint32 = 6 // WSK_TDI_DEVICENAME_MAPPING
	SetStaticEventCallbacks uint32 = 7 // WSK_SET_STATIC_EVENT_CALLBACKS
	TDIBehavior             uint32 = 8 // WSK_TDI_BEHAVIOR
)

// Transport is WSK_TRANSPORT: a triple that Client.Socket takes.
type Transport struct {
	Version    uint16
	SocketType SocketType
	Protocol   Protocol
	Family     AddressFamily
	ProviderID [16]byte
}

const transportSize = 28 // sizeof(WSK_TRANSPORT)

var transportList = []Transport{
	{Version: Version10, SocketType: SockStream, Protocol: IPProtoTCP, Family: AFInet},
	{Version: Version10, SocketType: SockStream, Protocol: IPProtoTCP, Family: AFInet6},
	{Version: Version10, SocketType: SockDgram, Protocol: IPProtoUDP, Family: AFInet},
	{Version: Version10, SocketType: SockDgram, Protocol: IPProtoUDP, Family: AFInet6},
}

// supported tells the transports of WSK_TRANSPORT_LIST_QUERY (WSK-SOCK-02).
func supported(f AddressFamily, t SocketType, p Protocol) bool {
	for _, x := range transportList {
		if x.Family == f && x.SocketType == t && x.Protocol == p {
			return true
		}
	}
	return false
}

// ParseTransports reads what WSK_TRANSPORT_LIST_QUERY wrote.
func ParseTransports(b []byte) (out []Transport) {
	for ; len(b) >= transportSize; b = b[transportSize:] {
		out = append(out, Transport{Version: le.Uint16(b), SocketType: SocketType(le.Uint16(b[2:])), Protocol: Protocol(le.Uint32(b[4:])),
			Family: AddressFamily(le.Uint16(b[8:])), ProviderID: [16]byte(b[12:28])})
	}
	return out
}

func appendTransports(b []byte) []byte {
	for _, t := range transportList {
		b = le.AppendUint16(b, t.Version)
		b = le.AppendUint16(b, uint16(t.SocketType))
		b = le.AppendUint32(b, uint32(t.Protocol))
		b = le.AppendUint32(b, uint32(t.Family))
		b = append(b, t.ProviderID[:]...)
	}
	return b
}

// clientControls are the codes, and what each wants of the Irp argument.
var clientControls = map[uint32]struct {
	irp irpRule
	run func(c *Client, in, out []byte) (ntstatus.Status, int)
}{
	TransportListQuery: {irpForbidden, func(_ *Client, _, out []byte) (ntstatus.Status, int) {
		return overflow(appendTransports(nil), out)
	}},
	TransportListChange:     {irpRequired, nil},
	CacheSD:                 {irpOptional, (*Client).cacheSD},
	ReleaseSD:               {irpOptional, (*Client).releaseSD},
	SetStaticEventCallbacks: {irpForbidden, (*Client).setStaticEvents},
	// TDI is the interface before WSK; there are no devices to map.
	TDIDeviceNameMapping: {irpForbidden, func(*Client, []byte, []byte) (ntstatus.Status, int) { return ntstatus.NotSupported, 0 }},
	TDIBehavior: {irpForbidden, func(_ *Client, in, _ []byte) (ntstatus.Status, int) {
		const bypassTDI = 1 // WSK_TDI_BEHAVIOR_BYPASS_TDI, which is always so here
		if v, ok := ulong(in); !ok || v&^bypassTDI != 0 {
			return ntstatus.InvalidParameter, 0
		}
		return ntstatus.Success, 0
	}},
}

// ControlClient is WskControlClient. With an IRP the number of bytes is its
// Information and returned is not used; without one it is *returned, zero for a call
// that failed early.
func (c *Client) ControlClient(code uint32, in, out []byte, returned *int, irp *IRP) (st ntstatus.Status) {
	if t := c.tracer.Load(); t != nil {
		defer t.call(irp, &st, "WskControlClient", "code %d, in %d, out %d", code, len(in), len(out))
	}
	k, known := clientControls[code]
	if irp == nil {
		if returned != nil {
			*returned = 0
		}
		switch {
		case !known:
			return ntstatus.InvalidDeviceRequest
		case k.irp == irpRequired:
			return ntstatus.RequestNotAccepted
		case code == TransportListQuery && returned == nil:
			return ntstatus.InvalidParameter
		case !c.usable():
			return ntstatus.DeviceNotReady
		}
		st, n := k.run(c, in, out)
		if returned != nil {
			*returned = n
		}
		return st
	}
	call, st := c.enter(irp)
	switch {
	case st != ntstatus.Success:
		return st
	case !known:
		return call.done(ntstatus.InvalidDeviceRequest, 0)
	case k.irp == irpForbidden:
		return call.done(ntstatus.InvalidParameter, 0)
	case code == TransportListChange:
		return c.awaitTransportChange(call)
	}
	st, n := k.run(c, in, out)
	return call.done(st, n)
}

// awaitTransportChange answers WSK_TRANSPORT_LIST_CHANGE. The transports are
// those of the program itself, so it pends until it is cancelled.
func (c *Client) awaitTransportChange(k call) ntstatus.Status {
	stop := make(chan struct{})
	return k.pend(func() { close(stop) }, func() (ntstatus.Status, int) {
		<-stop
		return ntstatus.Cancelled, 0
	})
}

// setStaticEvents answers WSK_SET_STATIC_EVENT_CALLBACKS: the events are enabled
// on every socket made or accepted from then on, and cannot be disabled.
func (c *Client) setStaticEvents(in, _ []byte) (ntstatus.Status, int) {
	ctl, ok := parseEventControl(in)
	if !ok || ctl.EventMask&EventDisable != 0 {
		return ntstatus.InvalidParameter, 0
	}
	c.mu.Lock()
	c.static |= ctl.EventMask
	c.mu.Unlock()
	return ntstatus.Success, 0
}

func (c *Client) staticEvents() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.static
}
