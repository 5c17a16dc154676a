// Package sockaddr writes and reads SOCKADDR_STORAGE as Windows lays it out:
// the form in which WFPSampler's callouts hand addresses to their proxy.
package sockaddr

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
)

// Size is sizeof(SOCKADDR_STORAGE).
const Size = 128

const (
	afINET  = 2
	afINET6 = 23
)

// Append appends the SOCKADDR_STORAGE of a to b. A zone is the number of an interface there;
// one that is a name, which only the system knows, is left out.
func Append(b []byte, a netip.AddrPort) []byte {
	var s [Size]byte
	binary.BigEndian.PutUint16(s[2:], a.Port())
	switch ip := a.Addr(); {
	case ip.Is4():
		s[0] = afINET
		v4 := ip.As4()
		copy(s[4:], v4[:])
	case ip.Is6():
		s[0] = afINET6
		v6 := ip.As16()
		copy(s[8:], v6[:])
		if zone := ip.Zone(); zone != "" {
			scope, _ := strconv.ParseUint(zone, 10, 32)
			binary.LittleEndian.PutUint32(s[24:], uint32(scope))
		}
	}
	return append(b, s[:]...)
}

// Parse reads the SOCKADDR_STORAGE that b begins with. A zone is the number of an interface.
func Parse(b []byte) (netip.AddrPort, error) {
	if len(b) < Size {
		return netip.AddrPort{}, fmt.Errorf("sockaddr: %d bytes, a SOCKADDR_STORAGE has %d", len(b), Size)
	}
	port := binary.BigEndian.Uint16(b[2:])
	switch family := binary.LittleEndian.Uint16(b); family {
	case afINET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port), nil
	case afINET6:
		a := netip.AddrFrom16([16]byte(b[8:24]))
		if scope := binary.LittleEndian.Uint32(b[24:]); scope != 0 {
			a = a.WithZone(strconv.FormatUint(uint64(scope), 10))
		}
		return netip.AddrPortFrom(a, port), nil
	default:
		return netip.AddrPort{}, fmt.Errorf("sockaddr: address family %d is neither AF_INET nor AF_INET6", family)
	}
}
