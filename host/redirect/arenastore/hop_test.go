package arenastore_test

import (
	"net/netip"

	"github.com/calloutd/calloutd/host/redirect"
)

var blob = make([]byte, redirect.MaxBlob)

// hop has an encoding of 100 to 1,024 bytes.
func hop(serial uint64) *redirect.Hop {
	h := new(redirect.Hop)
	setHop(h, serial)
	return h
}

func setHop(h *redirect.Hop, serial uint64) {
	*h = redirect.Hop{Serial: serial, Handle: 1, Provider: "contoso", FilterID: 3, Callout: "web",
		Original: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, 7}), 443), Target: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 8080),
		TargetPID: 900, ProcessID: 4242, AppID: "/usr/bin/curl"}
	h.Record = blob[: 21+serial*0x9E3779B97F4A7C15>>32%925 : redirect.MaxBlob]
}
