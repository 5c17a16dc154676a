//go:build linux

package nftgateway

import (
	"io"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A port of a bridge receives nothing as the rules see it: a gateway for it would let all
// through. One for the bridge decides.
func TestPortOfABridgeIsRefused(t *testing.T) {
	router(t, func(n *network) {
		n.bridge()
		blocked := n.serveAt("tcp4", "198.18.1.2:25", "25")
		try := func() (string, error) {
			c, err := n.dial(n.inside, "tcp4", blocked)
			if err != nil {
				return "", err
			}
			defer c.Close()
			b, err := io.ReadAll(c)
			return string(b), err
		}
		got, err := try()
		require.NoError(t, err)
		require.Equal(t, "25", got, "the way exists")
		o := Options{Interfaces: []string{"in"}, ALE: deciding(t, netip.AddrPort{}), Logf: t.Logf}
		_, err = Start(t.Context(), o)
		require.EqualError(t, err, "nftgateway: interface in is a port of br, and what it receives comes in on that: name br")
		o.Interfaces = []string{"br"}
		g, err := Start(t.Context(), o)
		require.NoError(t, err)
		defer g.Close()
		_, err = try()
		require.ErrorIs(t, err, unix.ECONNRESET)
	})
}

// bridge makes the router's interface inside a port of a bridge, which has its addresses.
func (n *network) bridge() {
	require.NoError(n.t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br"}}))
	br, err := netlink.LinkByName("br")
	require.NoError(n.t, err)
	in, err := netlink.LinkByName("in")
	require.NoError(n.t, err)
	addr, err := netlink.ParseAddr("198.18.0.1/24")
	require.NoError(n.t, err)
	require.NoError(n.t, netlink.AddrDel(in, addr))
	require.NoError(n.t, netlink.LinkSetMaster(in, br))
	require.NoError(n.t, netlink.AddrAdd(br, addr))
	require.NoError(n.t, netlink.LinkSetUp(br))
}
