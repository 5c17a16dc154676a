//go:build linux

package nftgateway

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
)

// Where a link behind the gateway takes smaller packets than those of both ends, who carries a
// connection is told so by an ICMP error to the address that the client believes to talk to.
func TestSmallerPacketsBehindItGetThrough(t *testing.T) {
	router(t, func(n *network) {
		far := n.namespace()
		n.at(n.inside, func() {
			for _, key := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
				require.NoError(t, os.WriteFile("/proc/sys/net/"+key, []byte("1"), 0o644))
			}
			n.wire(far, "narrow", "198.18.2", "2001:db8:18:2")
			require.NoError(t, netlink.LinkSetMTU(n.link("narrow"), 1300))     // Of the other end it stays 1500.
			for _, gateway := range []string{"198.18.0.1", "2001:db8:18::1"} { // Which narrow took with it.
				_ = netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(gateway)})
			}
		})
		for to, by := range map[string]string{"198.18.2.0/24": "198.18.0.2", "2001:db8:18:2::/64": "2001:db8:18:0::2"} {
			_, dst, err := net.ParseCIDR(to)
			require.NoError(t, err)
			require.NoError(t, netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(by)}))
		}
		long := strings.Repeat("x", 1<<20)
		for network, at := range map[string]string{"tcp4": "198.18.1.2:80", "tcp6": "[2001:db8:18:1::2]:80"} {
			n.serveAt(network, at, long)
		}
		for _, transparent := range []bool{true, false} { // What the second one learns is known by then.
			g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: deciding(t, netip.AddrPort{}), Transparent: transparent, Logf: t.Logf})
			require.NoError(t, err)
			for network, at := range map[string]string{"tcp4": "198.18.1.2:80", "tcp6": "[2001:db8:18:1::2]:80"} {
				c, err := n.dial(far, network, at)
				require.NoError(t, err)
				require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Second)))
				got, err := get(c, nil)
				what := fmt.Sprint(network, ", transparent: ", transparent)
				require.NoError(t, err, what)
				require.Len(t, got, len(long), what)
			}
			require.NoError(t, g.Close())
		}
	})
}
