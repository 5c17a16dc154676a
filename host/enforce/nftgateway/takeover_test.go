//go:build linux

package nftgateway

import (
	"fmt"
	"testing"

	"github.com/google/nftables"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// leftOver makes what a gateway leaves when it dies.
func leftOver(t *testing.T, transparent bool) {
	o := Options{Interfaces: []string{"in"}, Transparent: transparent}
	if transparent {
		_, err := addRoutes(o.mark())
		require.NoError(t, err)
	}
	require.NoError(t, install(&o, ports{tcp: families[uint16]{9, 9}}, &site{names: o.Interfaces}))
	g, err := newGuard(&o, &site{names: o.Interfaces})
	require.NoError(t, err)
	require.NoError(t, g.c.CloseLasting())
}

// snap is what there is of the gateways of this system: what is in its tables, to the
// port that a rule sends to, and how many rules and routes the mark has.
func snap(t *testing.T) (s []string) {
	c, err := nftables.New()
	require.NoError(t, err)
	tables, err := c.ListTables()
	require.NoError(t, err)
	for _, table := range tables {
		s = append(s, "table "+table.Name)
		sets, err := c.GetSets(table)
		require.NoError(t, err)
		for _, set := range sets {
			elements, err := c.GetSetElements(set)
			require.NoError(t, err)
			s = append(s, fmt.Sprintf("set %s %v", set.Name, elements))
		}
	}
	chains, err := c.ListChains()
	require.NoError(t, err)
	for _, chain := range chains {
		s = append(s, "chain "+chain.Table.Name+" "+chain.Name)
		rules, err := c.GetRules(chain.Table, chain)
		require.NoError(t, err)
		for _, r := range rules {
			for _, e := range r.Exprs {
				s = append(s, fmt.Sprintf("rule %d: %+v", r.Handle, e))
			}
		}
	}
	_, rules, routes := state(t)
	return append(s, fmt.Sprint("of the mark ", rules, routes))
}

// fill takes all places for chains that packets go through on their way elsewhere,
// so that the kernel refuses the rules of a gateway, which come last.
func fill(t *testing.T) {
	const places = 1024 // MAX_HOOK_COUNT
	c, err := nftables.New()
	require.NoError(t, err)
	table := c.AddTable(&nftables.Table{Name: "full", Family: nftables.TableFamilyINet})
	for i := range places {
		c.AddChain(&nftables.Chain{Name: fmt.Sprint("c", i), Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
		if i%32 == 31 {
			if err = c.Flush(); err != nil {
				break
			}
		}
	}
	for i := 0; err == nil || i < 32; i++ { // One by one, as far as it goes.
		c.AddChain(&nftables.Chain{Name: fmt.Sprint("last", i), Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
		err = c.Flush()
	}
	require.ErrorIs(t, err, unix.E2BIG)
}

// Whatever the reason that a gateway does not start for: what an earlier one left
// goes on to refuse, and what this one made is gone.
func TestAGatewayThatDoesNotStartLeavesTheEarlierRulesAsTheyWere(t *testing.T) {
	for name, c := range map[string]struct {
		transparent bool
		breaks      func(t *testing.T, o *Options)
		says        string
	}{
		"no such interface":                     {breaks: func(_ *testing.T, o *Options) { o.Interfaces = append(o.Interfaces, "no-such") }, says: "interface no-such"},
		"the kernel refuses rules":              {breaks: func(t *testing.T, _ *Options) { fill(t) }, says: "argument list too long"},
		"the kernel refuses rules, with TPROXY": {transparent: true, breaks: func(t *testing.T, _ *Options) { fill(t) }, says: "argument list too long"},
		"the kernel refuses a route": {transparent: true, says: "network is down", breaks: func(t *testing.T, _ *Options) {
			lo, err := netlink.LinkByName("lo")
			require.NoError(t, err)
			require.NoError(t, netlink.LinkSetDown(lo))
		}},
	} {
		for _, earlier := range []string{"no earlier one", "one without TPROXY", "one with TPROXY"} {
			t.Run(name+", "+earlier, func(t *testing.T) {
				router(t, func(n *network) {
					origin := n.serve("origin")
					if earlier != "no earlier one" {
						leftOver(t, earlier == "one with TPROXY")
					}
					o := Options{Interfaces: []string{"in"}, ALE: permitAll(), Transparent: c.transparent, Logf: t.Logf}
					c.breaks(t, &o)
					before := snap(t)
					_, err := Start(t.Context(), o)
					require.ErrorContains(t, err, c.says)
					require.Equal(t, before, snap(t))
					if earlier != "no earlier one" {
						_, err = get(n.dial(n.inside, "tcp4", origin))
						require.Error(t, err)
					}
				})
			})
		}
	}
}

// A host has an interface for each container.
func TestManyInterfaces(t *testing.T) {
	router(t, func(n *network) {
		origin := n.serve("origin")
		o := Options{ALE: permitAll(), Transparent: true, Logf: t.Logf}
		for i := range 50 {
			a, b := fmt.Sprint("a", i), fmt.Sprint("b", i)
			require.NoError(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: a}, PeerName: b}))
			o.Interfaces = append(o.Interfaces, a, b)
		}
		o.Interfaces = append(o.Interfaces, "in")
		g, err := Start(t.Context(), o)
		require.NoError(t, err)
		got, err := get(n.dial(n.inside, "tcp4", origin))
		require.NoError(t, err)
		require.Equal(t, "origin", got)
		require.NoError(t, g.Close())

		o.Interfaces = nil
		for i := range maxInterfaces {
			o.Interfaces = append(o.Interfaces, fmt.Sprintf("fifteen-byte%03x", i))
		}
		require.NoError(t, install(&o, ports{tcp: families[uint16]{9, 9}, udp: families[uint16]{9, 9}}, &site{names: o.Interfaces}))
		require.NoError(t, uninstall(&o))
		o.Interfaces = append(o.Interfaces, "one-more")
		_, err = Start(t.Context(), o)
		require.EqualError(t, err, "nftgateway: 1001 interfaces are named: expected up to 1000")
	})
}
