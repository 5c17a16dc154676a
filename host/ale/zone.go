package ale

import (
	"maps"
	"net"
	"net/netip"
	"strconv"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// numbered is an address whose zone is a number, as in a SOCKADDR_IN6 and as both ends of
// a connection see it. The zone of an interface that there is not stays as it is; that of
// an address which is not of a link nobody reads.
func numbered(a netip.AddrPort) netip.AddrPort {
	zone := a.Addr().Zone()
	switch {
	case zone == "":
		return a
	case !ofLink(a.Addr()):
		return netip.AddrPortFrom(a.Addr().WithZone(""), a.Port())
	case zone[0] >= '0' && zone[0] <= '9':
		return a
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return a
	}
	return netip.AddrPortFrom(a.Addr().WithZone(strconv.Itoa(i.Index)), a.Port())
}

// ofLink reports whether an address means something on one link only.
func ofLink(a netip.Addr) bool {
	return !a.Is4In6() && (a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() || a.IsInterfaceLocalMulticast())
}

// sameLink is where a callout sends a connection to a link-local address: on the link of
// the original destination, unless it says which. A wasm callout cannot: its answer has
// no scope.
func sameLink(to, original netip.AddrPort) netip.AddrPort {
	a, zone := to.Addr(), original.Addr().Zone()
	if zone == "" || a.Zone() != "" || !ofLink(a) {
		return to
	}
	return netip.AddrPortFrom(a.WithZone(zone), to.Port())
}

// onLink fills in the interface of a connection whose peer is an address of a link: filters
// and callouts see addresses without zones. was is the peer that the connection had before,
// whose link may be another one.
func onLink(in *fwps.Incoming, was netip.AddrPort) {
	zone := in.Remote.Addr().Zone()
	if zone == "" && was.Addr().Zone() == "" {
		return
	}
	in.Other = maps.Clone(in.Other)
	delete(in.Other, fwpm.ConditionInterfaceIndex)
	n, err := strconv.ParseUint(zone, 10, 32)
	if err != nil || n == 0 { // No link, or one that there is not.
		return
	}
	if in.Other == nil {
		in.Other = map[fwpm.ConditionID]fwp.Value{}
	}
	in.Other[fwpm.ConditionInterfaceIndex] = fwp.U32(uint32(n))
}
