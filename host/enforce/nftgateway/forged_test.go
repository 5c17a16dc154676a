//go:build linux

package nftgateway

import (
	"net/netip"
	"os"
	"sync"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// A datagram says whom it is from, and the gateway believes it: these two have the router
// drop what does not come from where its address is, before the gateway sees it.
func TestForgedSourcesAreTheRoutersToDrop(t *testing.T) {
	enforcetest.Tool(t, "ip")
	for remedy, of := range map[string]struct {
		take  func(n *network)
		helps map[string]bool // by the address of who is inside
	}{
		"none": {func(*network) {}, nil},
		"sysctl net.ipv4.conf.in.rp_filter=1": {func(n *network) {
			require.NoError(n.t, os.WriteFile("/proc/sys/net/ipv4/conf/in/rp_filter", []byte("1"), 0o644))
		}, map[string]bool{"198.18.0.2": true}},
		"nft add rule inet sources prerouting iifname in fib saddr . iif oif missing drop": {
			foreign(nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw,
				&expr.Fib{Register: register, ResultOIF: true, FlagSADDR: true, FlagIIF: true, FlagPRESENT: true},
				&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{0}}, &expr.Verdict{Kind: expr.VerdictDrop}),
			map[string]bool{"198.18.0.2": true, "2001:db8:18::2": true},
		},
	} {
		t.Run(remedy, func(t *testing.T) {
			router(t, func(n *network) {
				n.t = t
				var mu sync.Mutex
				asked := map[netip.Addr]bool{}
				e := host.New(host.Options{OnDecision: func(in *fwps.Incoming, _ *fwps.Decision) {
					mu.Lock()
					defer mu.Unlock()
					asked[in.Local.Addr().Unmap()] = true
				}})
				g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: ale.New(ale.Options{Classifier: e, Store: memstore.New(0)}), Transparent: true, Logf: t.Logf})
				require.NoError(t, err)
				of.take(n)
				n.script(n.inside, "ip addr add 198.18.1.77/32 dev lo; ip addr add 2001:db8:18:1::77/128 dev lo nodad")
				forged := map[string]string{"198.18.0.2": "198.18.1.77", "2001:db8:18::2": "2001:db8:18:1::77"}
				for own, other := range forged {
					to := n.echo(n.outside, netip.AddrPortFrom(netip.MustParseAddr(map[bool]string{true: "198.18.1.2", false: "2001:db8:18:1::2"}[len(own) == 10]), 0).String(), "outside")
					n.send(n.client(netip.AddrPortFrom(netip.MustParseAddr(other), 0).String()), to, "forged")
					require.Contains(t, n.ask(n.client(netip.AddrPortFrom(netip.MustParseAddr(own), 0).String()), to, "hello"), "hello")
				}
				decided := func(a string) bool { mu.Lock(); defer mu.Unlock(); return asked[netip.MustParseAddr(a)] }
				for own, other := range forged {
					require.True(t, decided(own))
					if !of.helps[own] {
						require.Eventually(t, func() bool { return decided(other) }, waitTime, pollTime, other)
					}
				}
				require.NoError(t, g.Close()) // Nothing is under way.
				for own, other := range forged {
					require.NotEqual(t, of.helps[own], decided(other), other)
				}
			})
		})
	}
}
