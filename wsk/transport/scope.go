package transport

import (
	"net"
	"net/netip"
	"strconv"
)

// ScopeID is the sin6_scope_id of an address: the number of the interface that its zone
// is, zero for none.
func ScopeID(a netip.Addr) (uint32, error) {
	zone := a.Zone()
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(i.Index), nil
}

// WithScope is an address in the zone of a scope, which is its number.
func WithScope(a netip.Addr, id uint32) netip.Addr {
	if id == 0 {
		return a
	}
	return a.WithZone(strconv.FormatUint(uint64(id), 10))
}
