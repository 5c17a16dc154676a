//go:build linux && (amd64 || arm64)

package nftgateway

import (
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
)

// Who sends to the gateway's own ports is refused, and fills no disk with that.
func TestStrangersFillNoLog(t *testing.T) {
	router(t, func(n *network) {
		const each = 200
		var lines enforcetest.Lines
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: permitAll(), Transparent: true, Logf: lines.Logf})
		require.NoError(t, err)
		at := netip.MustParseAddr("198.18.0.1")
		for range each {
			_, err := get(n.dial(n.inside, "tcp4", netip.AddrPortFrom(at, uint16(g.listen[0].Addr().(*net.TCPAddr).Port)).String()))
			require.Error(t, err)
		}
		c := n.client("198.18.0.2:0")
		for range each {
			n.send(c, netip.AddrPortFrom(at, g.udp[0].port), "hello")
		}
		enforcetest.IsRead(t, g.udp[0].conn)
		require.NoError(t, g.Close())
		lines.Bounded(t, 2, 2*each)
	})
}
