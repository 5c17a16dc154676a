package enforcetest

import (
	"net/netip"
	"strings"
)

// A testCase is one connection of the list, and what becomes of it.
type testCase struct {
	name    string
	network string // of package net
	how     string // connect, or send: a datagram without a connect
	to      netip.AddrPort
	want    string

	simulated string
}

// What becomes of a connection. A redirected one reaches a proxy, which knows
// whom it was for.
const (
	permitted  = "origin"
	blocked    = "blocked"
	redirected = "proxy for "
)

// Documentation addresses: nothing is there.
var (
	redirected4 = netip.MustParseAddr("203.0.113.10")
	redirected6 = netip.MustParseAddr("2001:db8::10")
	nowhere4    = netip.MustParseAddr("198.51.100.7")
	nowhere6    = netip.MustParseAddr("2001:db8:ffff::7")
)

const (
	blockedPort = 25
	appPort     = 443 // only another program may connect to it
)

// cases is the list, without what a backend cannot do.
func (w *world) cases(can Abilities) []testCase {
	var list []testCase
	add := func(name, network, how string, addr netip.Addr, port uint16, want string) {
		to := netip.AddrPortFrom(addr, port)
		datagram := strings.HasPrefix(network, "udp")
		switch {
		case datagram && (!can.DecidesDatagrams || want == redirected && !can.RedirectsDatagrams), port == appPort && !can.SeesPrograms:
			return
		case want == redirected:
			want += to.String()
		}
		list = append(list, testCase{name: name + " " + network + " " + how, network: network, how: how, to: to, want: want})
	}
	for _, n := range []struct{ network, how string }{{"tcp4", "connect"}, {"tcp6", "connect"},
		{"udp4", "connect"}, {"udp6", "connect"}, {"udp4", "send"}, {"udp6", "send"}} {
		origin, forbidden := w.origin[n.network], w.forbidden[n.network]
		away, nowhere := redirected4, nowhere4
		if strings.HasSuffix(n.network, "6") {
			away, nowhere = redirected6, nowhere6
		}
		add("permitted", n.network, n.how, origin.Addr(), origin.Port(), permitted)
		add("blocked by its port here", n.network, n.how, forbidden.Addr(), forbidden.Port(), blocked)
		add("blocked by its port elsewhere", n.network, n.how, nowhere, blockedPort, blocked)
		add("blocked by address and program", n.network, n.how, nowhere, appPort, blocked)
		add("redirected", n.network, n.how, away, 80, redirected)
		add("redirected from a blocked port", n.network, n.how, away, blockedPort, redirected)
		add("permitted again", n.network, n.how, origin.Addr(), origin.Port(), permitted)
	}
	return list
}
