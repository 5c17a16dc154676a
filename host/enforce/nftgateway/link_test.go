//go:build linux

package nftgateway

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
)

// An address of a link is no other link's: what is sent to one by way of the gateway goes
// nowhere, as with any router. One that comes from such an address is carried as others are.
func TestLinkLocalAddressesAreOfTheirLink(t *testing.T) {
	enforcetest.Tool(t, "ip")
	both(t, func(n *network, transparent bool) {
		n.script(n.outside, "ip addr add fe80::9/64 dev out-peer nodad")
		n.script(n.inside, "ip addr add fe80::8/64 dev in-peer nodad")
		at := n.serveAt("tcp6", "[::]:0", "outside")
		_, port, err := net.SplitHostPort(at)
		require.NoError(t, err)
		dial := func(from, to string, wait time.Duration) (got string, err error) {
			n.at(n.inside, func() {
				d := net.Dialer{Timeout: wait}
				if from != "" {
					d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from), Zone: "in-peer"}
				}
				got, err = get(d.Dial("tcp6", net.JoinHostPort(to, port)))
			})
			return got, err
		}
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: permitAll(), Transparent: transparent, Logf: t.Logf})
		require.NoError(t, err)
		defer g.Close()
		for _, from := range []string{"", "fe80::8"} {
			got, err := dial(from, "2001:db8:18:1::2", waitTime)
			require.NoError(t, err)
			require.Equal(t, "outside", got)
		}
		router, err := net.InterfaceByName("in")
		require.NoError(t, err)
		n.script(n.inside, "ip -6 neigh replace fe80::9 lladdr "+router.HardwareAddr.String()+" dev in-peer")
		_, err = dial("", "fe80::9%in-peer", 2*time.Second)
		require.Error(t, err)
	})
}
