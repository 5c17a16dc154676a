//go:build linux

package nftgateway

import (
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
)

// What is carried goes on when the interface comes back or gets another name. When it is gone for
// good nothing of that holds up the gateway's end: who is outside is told, and nothing is left.
func TestWhatIsCarriedWhenTheInterfaceGoes(t *testing.T) {
	both(t, func(n *network, transparent bool) {
		var l net.Listener
		n.at(n.outside, func() {
			var err error
			l, err = net.Listen("tcp4", "198.18.1.2:0")
			require.NoError(t, err)
		})
		defer l.Close()
		origin := n.echo(n.outside, "198.18.1.2:0", "origin")
		datagrams := n.client("198.18.0.2:0")
		start := func() *Gateway {
			g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: permitAll(), Transparent: transparent, Logf: t.Logf})
			require.NoError(t, err)
			return g
		}
		require.NoError(t, start().Close()) // What a process has once and for all, it has now.
		before := enforcetest.Held(t)
		g := start()
		connected := func() (inside, outside net.Conn) {
			inside, err := n.dial(n.inside, "tcp4", l.Addr().String())
			require.NoError(t, err)
			outside, err = l.Accept()
			require.NoError(t, err)
			return inside, outside
		}
		quiet, quietOutside := connected()
		busy, busyOutside := connected()
		ask := func() {
			if transparent {
				n.ask(datagrams, origin, "hello")
			}
			for _, c := range []net.Conn{busy, busyOutside, busy} {
				_, err := io.WriteString(c, "x")
				require.NoError(t, err)
				to := map[net.Conn]net.Conn{busy: busyOutside, busyOutside: busy}[c]
				require.NoError(t, to.SetDeadline(time.Now().Add(waitTime)))
				_, err = io.ReadFull(to, make([]byte, 1))
				require.NoError(t, err)
			}
		}
		ask()
		in := n.link("in")
		require.NoError(t, netlink.LinkSetDown(in))
		require.NoError(t, netlink.LinkSetUp(in))
		ask()
		require.NoError(t, netlink.LinkSetDown(in))
		require.NoError(t, netlink.LinkSetName(in, "other"))
		require.NoError(t, netlink.LinkSetUp(in))
		ask()
		require.NoError(t, netlink.LinkDel(in))
		_, err := io.WriteString(busyOutside, "nobody hears that")
		require.NoError(t, err)

		require.NoError(t, g.Close())
		for _, c := range []net.Conn{quietOutside, busyOutside} {
			require.NoError(t, c.SetDeadline(time.Now().Add(waitTime)))
			_, err := c.Read(make([]byte, 1))
			require.Error(t, err)
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
			require.NoError(t, c.Close())
		}
		require.NoError(t, quiet.Close())
		require.NoError(t, busy.Close())
		before.NoMore(t, 4<<20)
	})
}
