//go:build linux && (amd64 || arm64)

package nftgateway

import (
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/redirect/memstore"
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

// It is no proxy for who knows its port, behind it or not, at whichever address of the
// router: the policy is not even asked.
func TestItsPortsCarryNothing(t *testing.T) {
	both(t, func(n *network, transparent bool) {
		e := host.New(host.Options{})
		require.NoError(n.t, e.Update(func(p *fwpm.Policy) error {
			for i, l := range []fwpm.LayerID{fwpm.LayerALEAuthConnectV4, fwpm.LayerALEAuthConnectV6} {
				p.Filters = append(p.Filters, fwpm.Filter{ID: fwpm.FilterID(i + 1), Name: "all", Layer: l, Action: fwp.ActionBlock})
			}
			return nil
		}))
		g, err := Start(n.t.Context(), Options{Interfaces: []string{"in"}, ALE: ale.New(ale.Options{Classifier: e, Store: memstore.New(0)}), Transparent: transparent,
			OnBlocked: func(d enforce.Denial) { n.t.Error("it was decided: ", d.Err) }})
		require.NoError(n.t, err)
		defer g.Close()
		tried := 0
		for _, l := range g.listen {
			port := l.Addr().(*net.TCPAddr).AddrPort().Port()
			for _, at := range []string{"198.18.0.1", "198.18.1.1", "2001:db8:18::1", "2001:db8:18:1::1"} {
				at := netip.AddrPortFrom(netip.MustParseAddr(at), port)
				if at.Addr().Is4() != (l == g.listen[0]) {
					continue
				}
				for _, from := range []netns.NsHandle{n.inside, n.outside} {
					got, err := get(n.dial(from, "tcp", at.String()))
					require.ErrorIs(n.t, err, unix.ECONNRESET, "%s: %q", at, got)
					tried++
				}
			}
		}
		require.Equal(n.t, 8, tried)
	})
}
