//go:build linux

package nftgateway

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// lines collects what a gateway tells.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (h *lines) logf(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, fmt.Sprintf(format, args...))
}

// has waits for a line, and forgets what was told.
func (h *lines) has(t *testing.T, part string) {
	t.Helper()
	require.Eventually(t, func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		told := strings.Contains(strings.Join(h.all, "\n"), part)
		if told {
			h.all = nil
		}
		return told
	}, waitTime, pollTime, part)
}

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
		var told lines
		start := func(transparent bool) *Gateway {
			g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: deciding(t, netip.AddrPort{}), Transparent: transparent, Logf: told.logf})
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
		require.Empty(t, told.all)
		g = start(true)
		told.has(t, "what they take is lost (ip -4 rule show priority 50): give them a priority of more than 100")
		other(unix.AF_INET6, 99, nil)
		told.has(t, "(ip -4 rule show priority 50, ip -6 rule show priority 99)")
		require.NoError(t, netlink.RuleDel(early))
		early.Priority = 101
		require.NoError(t, netlink.RuleAdd(early))
		got, err := get(n.dial(n.inside, "tcp4", permitted))
		require.NoError(t, err)
		require.Equal(t, "80", got)
		told.has(t, "(ip -6 rule show priority 99)")
		require.NoError(t, g.Close())
	})
}

// The rule and the route of marked packets that another tool takes away, as systemd-networkd
// does when it starts anew, are put back.
func TestRoutesOfMarkedPacketsArePutBack(t *testing.T) {
	router(t, func(n *network) {
		var told lines
		o := Options{Interfaces: []string{"in"}, ALE: deciding(t, netip.AddrPort{}), Transparent: true, Logf: told.logf}
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
				told.has(t, "somebody took the rule or the route of marked packets away")
				_, rules, routes := state(t)
				require.Equal(t, []int{2, 2}, []int{rules, routes}, what)
			}
			got, err := get(n.dial(n.inside, "tcp4", permitted))
			require.NoError(t, err, what)
			require.Equal(t, "80", got)
		}
	})
}
