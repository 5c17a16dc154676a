// Package reach says how far from this host an address may be, so that nobody outside
// has something said of, or sent to, what only this host or its network can reach.
package reach

import "net/netip"

// A Reach is from where an address can be reached.
type Reach int

// From nearest to farthest.
const (
	Nowhere Reach = iota // multicast, broadcast and what is no address of one host
	Host                 // this host
	Network              // a private network, or what is behind a provider's router
	World
)

var (
	shared    = netip.MustParsePrefix("100.64.0.0/10")  // RFC 6598
	site      = netip.MustParsePrefix("fec0::/10")      // RFC 3879
	nat64     = netip.MustParsePrefix("64:ff9b::/96")   // RFC 6052: IPv4 by way of a translator
	nat64Here = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215: likewise, of a network
)

// Of is the reach of an address.
func Of(a netip.Addr) Reach {
	a = a.Unmap().WithZone("")
	if nat64.Contains(a) {
		b := a.As16()
		return Of(netip.AddrFrom4([4]byte(b[12:]))) // The translator's host and network, which are no nearer.
	}
	switch {
	case a.IsLoopback():
		return Host
	case a.IsPrivate(), a.IsLinkLocalUnicast(), shared.Contains(a), site.Contains(a), nat64Here.Contains(a):
		return Network
	case a.IsGlobalUnicast():
		return World
	}
	return Nowhere
}
