//go:build linux

package nftgateway

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

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

// It is told of those rules that take packets of who is behind the gateway, and of no others: a
// rule for each is made that leads nowhere, and a connection says who is right.
func TestRulesForRoutesAreToldWhereTheyTakeSomething(t *testing.T) {
	router(t, func(n *network) {
		permitted := n.serveAt("tcp4", "198.18.1.2:80", "80")
		const nowhere = 7
		require.NoError(t, netlink.RouteAdd(&netlink.Route{Dst: everything[unix.AF_INET], Table: nowhere, Type: unix.RTN_BLACKHOLE}))
		var told enforcetest.Told
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: deciding(t, netip.AddrPort{}), Transparent: true, Logf: told.Logf})
		require.NoError(t, err)
		defer g.Close()
		network := func(s string) *net.IPNet {
			_, n, err := net.ParseCIDR(s)
			require.NoError(t, err)
			return n
		}
		others := func(r *netlink.Rule) { // Than of the connection below.
			r.IPProto, r.Dport = unix.IPPROTO_UDP, netlink.NewRulePortRange(9, 9)
		}
		past := netlink.NewRule()
		past.Family, past.Priority, past.Table, past.Mark = unix.AF_INET, 110, nowhere, g.opts.mark()
		require.NoError(t, netlink.RuleAdd(past))
		for _, c := range []struct {
			what        string
			told, taken bool
			change      func(*netlink.Rule)
		}{
			{"from who is behind it", true, true, func(r *netlink.Rule) { r.Src = network("198.18.0.0/24") }},
			{"from another who may be", true, false, func(r *netlink.Rule) { r.Src = network("198.18.0.9/32") }},
			{"from its own address outside", false, false, func(r *netlink.Rule) { r.Src = network("198.18.1.1/32") }},
			{"from its own address inside", false, false, func(r *netlink.Rule) { r.Src = network("198.18.0.1/32") }},
			{"from loopback", false, false, func(r *netlink.Rule) { r.Src = network("127.0.0.0/9") }},
			{"to where it is going", true, true, func(r *netlink.Rule) { r.Dst = network("198.18.1.0/24") }},
			{"to its own address", false, false, func(r *netlink.Rule) { r.Dst = network("198.18.1.1/32") }},
			{"to the broadcast address", false, false, func(r *netlink.Rule) { r.Dst = network("198.18.1.255/32") }},
			{"to multicasts", false, false, func(r *netlink.Rule) { r.Dst = network("239.0.0.0/8") }},
			{"of a user", false, false, func(r *netlink.Rule) { r.UIDRange = netlink.NewRuleUIDRange(1000, 2000) }},
			{"of root and those that are nobody's", true, true, func(r *netlink.Rule) { r.UIDRange = netlink.NewRuleUIDRange(0, 999) }},
			{"of a port", true, true, func(r *netlink.Rule) { r.Dport = netlink.NewRulePortRange(80, 80) }},
			{"of another protocol", false, false, func(r *netlink.Rule) { r.IPProto = unix.IPPROTO_SCTP }},
			{"that goes to the next one", false, false, func(r *netlink.Rule) { r.Type, r.Goto, r.Table = 2, 60, 0 }},
			{"that goes past", true, true, func(r *netlink.Rule) { r.Type, r.Goto, r.Table = 2, 110, 0 }},
			{"that does nothing", false, false, func(r *netlink.Rule) { r.Type = 3 }},
			{"not from there", true, false, func(r *netlink.Rule) { r.Invert, r.Src = true, network("198.18.1.0/24") }},
			{"not from those behind it", true, false, func(r *netlink.Rule) { r.Invert, r.Src = true, network("198.18.0.0/24") }},
			{"not of that interface", false, false, func(r *netlink.Rule) { r.Invert, r.IifName = true, "in" }},
			{"not of another", true, false, func(r *netlink.Rule) { r.Invert, r.IifName = true, "out" }},
			{"not TCP", true, false, func(r *netlink.Rule) { r.Invert, r.IPProto = true, unix.IPPROTO_TCP }},
		} {
			made := func(priority int, change func(*netlink.Rule)) *netlink.Rule {
				r := netlink.NewRule()
				r.Family, r.Priority, r.Table = unix.AF_INET, priority, nowhere
				change(r)
				if !r.Invert {
					r.Mark = g.opts.mark() // Not those that the gateway itself sends.
				}
				require.NoError(t, netlink.RuleAdd(r), c.what)
				return r
			}
			target := made(60, others)
			told.Has(t, "(ip -4 rule show priority 60)")
			r := made(50, c.change)
			if d := (net.Dialer{Timeout: time.Minute}); !r.Invert { // That takes what the gateway sends, too.
				if c.taken { // No answer comes.
					d.Timeout = time.Second / 2
				}
				var connection net.Conn
				var err error
				n.at(n.inside, func() { connection, err = d.Dial("tcp4", permitted) })
				if c.taken {
					require.True(t, os.IsTimeout(err), "%s: %v", c.what, err)
				} else {
					got, err := get(connection, err)
					require.NoError(t, err, c.what)
					require.Equal(t, "80", got)
				}
			}
			last := made(70, others)
			want := "(ip -4 rule show priority 60, ip -4 rule show priority 70)"
			if c.told {
				want = "(ip -4 rule show priority 50, ip -4 rule show priority 60, ip -4 rule show priority 70)"
			}
			told.Has(t, want)
			for _, r := range []*netlink.Rule{r, last, target} {
				require.NoError(t, netlink.RuleDel(r), c.what)
			}
		}
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
