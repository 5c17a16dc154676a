//go:build linux

package nftgateway

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
)

// A rule for routes of another tool that comes before has what is transparent lost: that is
// told, at the start and when it is made later, and what helps does.
func TestRulesForRoutesThatComeBeforeAreTold(t *testing.T) {
	router(t, func(n *network) {
		permitted := n.serveAt("tcp4", "198.18.1.2:80", "80")
		other := func(family, priority int, change func(*netlink.Rule)) *netlink.Rule {
			r := netlink.NewRule()
			r.Family, r.Priority, r.Table = family, priority, 7
			if change != nil {
				change(r)
			}
			require.NoError(t, netlink.RuleAdd(r))
			return r
		}
		var told enforcetest.Told
		start := func(transparent bool) *Gateway {
			g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: deciding(t, netip.AddrPort{}), Transparent: transparent, Logf: told.Logf})
			require.NoError(t, err)
			return g
		}
		mask := uint32(0xf00)
		for _, r := range []*netlink.Rule{ // These take none of its packets.
			other(unix.AF_INET, 60, func(r *netlink.Rule) { r.IifName = "out" }),
			other(unix.AF_INET, 61, func(r *netlink.Rule) { r.Mark, r.Mask = 0x200, &mask }),
			other(unix.AF_INET6, 62, func(r *netlink.Rule) { r.OifName = "out" }),
			other(unix.AF_INET, 63, func(r *netlink.Rule) { r.Table = unix.RT_TABLE_LOCAL }),
			other(unix.AF_INET, 101, nil),
		} {
			defer func() { require.NoError(t, netlink.RuleDel(r)) }()
		}
		early := other(unix.AF_INET, 50, func(r *netlink.Rule) { r.IifName = "in" })
		g := start(false)
		require.NoError(t, g.Close())
		told.Nothing(t)
		g = start(true)
		told.Has(t, "what they take is lost (ip -4 rule show priority 50): give them a priority of more than 100")
		other(unix.AF_INET6, 99, nil)
		told.Has(t, "(ip -4 rule show priority 50, ip -6 rule show priority 99)")
		require.NoError(t, netlink.RuleDel(early))
		early.Priority = 101
		require.NoError(t, netlink.RuleAdd(early))
		got, err := get(n.dial(n.inside, "tcp4", permitted))
		require.NoError(t, err)
		require.Equal(t, "80", got)
		told.Has(t, "(ip -6 rule show priority 99)")
		require.NoError(t, g.Close())
	})
}

// The rule and the route of marked packets that another tool takes away, as systemd-networkd
// does when it starts anew, are put back.
func TestRoutesOfMarkedPacketsArePutBack(t *testing.T) {
	router(t, func(n *network) {
		var told enforcetest.Told
		o := Options{Interfaces: []string{"in"}, ALE: deciding(t, netip.AddrPort{}), Transparent: true, Logf: told.Logf}
		permitted := n.serveAt("tcp4", "198.18.1.2:80", "80")
		g, err := Start(t.Context(), o)
		require.NoError(t, err)
		defer g.Close()
		for what, take := range map[string]func(family int) error{
			"rule": func(family int) error { return netlink.RuleDel(rule(family, o.mark())) },
			"route": func(family int) error {
				return netlink.RouteDel(route(family, o.mark(), n.link("lo")))
			},
			"loopback": func(int) error { lo := n.link("lo"); _ = netlink.LinkSetDown(lo); return netlink.LinkSetUp(lo) },
		} {
			for family := range everything {
				require.NoError(t, take(family), what)
				told.Has(t, "somebody took the rule or the route of marked packets away")
				_, rules, routes := state(t)
				require.Equal(t, []int{2, 2}, []int{rules, routes}, what)
			}
			got, err := get(n.dial(n.inside, "tcp4", permitted))
			require.NoError(t, err, what)
			require.Equal(t, "80", got)
		}
	})
}
