package wsk

import (
	"encoding/binary"
	"net/netip"

	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/transport"
)

// Structures pass through control codes as the bytes of their 64-bit layout.
var le = binary.LittleEndian

// ulong reads a ULONG or a BOOLEAN, which options take alike.
func ulong(in []byte) (uint32, bool) {
	switch {
	case len(in) >= 4:
		return le.Uint32(in), true
	case len(in) == 1:
		return uint32(in[0]), true
	}
	return 0, false
}

// putUlong answers a query with a ULONG.
func putUlong(out []byte, v uint32) (ntstatus.Status, int) {
	if len(out) < 4 {
		return ntstatus.BufferTooSmall, 4
	}
	le.PutUint32(out, v)
	return ntstatus.Success, 4
}

// putSize answers a query with a SIZE_T.
func putSize(out []byte, v uint64) (ntstatus.Status, int) {
	if len(out) < 8 {
		return ntstatus.BufferTooSmall, 8
	}
	le.PutUint64(out, v)
	return ntstatus.Success, 8
}

const (
	sockaddrIn      = 16  // sizeof(SOCKADDR_IN)
	sockaddrIn6     = 28  // sizeof(SOCKADDR_IN6)
	sockaddrStorage = 128 // sizeof(SOCKADDR_STORAGE)
)

func sockaddrLen(a netip.Addr) int {
	if a.Is4() {
		return sockaddrIn
	}
	return sockaddrIn6
}

// AppendSockaddr appends the SOCKADDR_IN or SOCKADDR_IN6 of a, whose zone is the number
// of an interface there: zero if no interface has that name.
func AppendSockaddr(b []byte, a netip.AddrPort) []byte {
	if a.Addr().Is4() {
		b = le.AppendUint16(b, uint16(AFInet))
		b = binary.BigEndian.AppendUint16(b, a.Port())
		b = append(b, a.Addr().AsSlice()...)
		return append(b, make([]byte, 8)...)
	}
	b = le.AppendUint16(b, uint16(AFInet6))
	b = binary.BigEndian.AppendUint16(b, a.Port())
	b = append(b, 0, 0, 0, 0) // flow
	x := a.Addr().As16()
	b = append(b, x[:]...)
	scope, _ := transport.ScopeID(a.Addr())
	return le.AppendUint32(b, scope)
}

// ParseSockaddr reads a SOCKADDR. A zone is the number of an interface.
func ParseSockaddr(b []byte) (netip.AddrPort, bool) {
	if len(b) < sockaddrIn {
		return netip.AddrPort{}, false
	}
	port := binary.BigEndian.Uint16(b[2:])
	switch AddressFamily(le.Uint16(b)) {
	case AFInet:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port), true
	case AFInet6:
		if len(b) >= sockaddrIn6 {
			return netip.AddrPortFrom(transport.WithScope(netip.AddrFrom16([16]byte(b[8:24])), le.Uint32(b[24:])), port), true
		}
	}
	return netip.AddrPort{}, false
}
