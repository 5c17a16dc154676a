//go:build linux

package nftgateway

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/enforce/handoff"
)

// Who floods flows to a proxy that does not answer takes no more memory than datagrams may.
// What is lost is counted, and who comes late with little is carried all the same.
func TestFloodOfDatagramsIsBounded(t *testing.T) {
	const budget, flows, size, small = 2 << 20, 200, 40_000, 2 << 10
	router(t, func(n *network) {
		proxy, end := enforcetest.Mute(t)
		defer func() { end() }()
		one := n.echo(n.outside, "198.18.1.2:0", "one")
		said := make(chan string, 1)
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: deciding(t, proxy), Transparent: true, MaxDatagramBytes: budget,
			Handoff: handoff.Only(proxy, &handoff.Proxy{Kind: handoff.SOCKS5}), Logf: func(format string, args ...any) {
				select {
				case said <- fmt.Sprintf(format, args...):
				default:
				}
			}})
		require.NoError(t, err)
		defer g.Close()
		c, before := n.client("198.18.0.2:0"), enforcetest.Heap()
		lost := func() (n uint64) {
			for _, some := range g.Datagrams().Lost {
				n += some
			}
			return n
		}
		for range 10 {
			for i := range flows {
				n.send(c, netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 53), strings.Repeat("x", size))
				require.LessOrEqual(t, g.Datagrams().Bytes, int64(budget+flows*small))
			}
		}
		enforcetest.IsRead(t, g.udp[0].conn)
		require.Equal(t, "one heard hello from 198.18.1.1", n.ask(n.client("198.18.0.2:0"), one, "hello"))
		require.LessOrEqual(t, enforcetest.Heap()-before, int64(budget+flows<<14), "the flows themselves take some")
		require.Greater(t, g.Datagrams().Flows, int64(flows/2))
		require.NotZero(t, g.Datagrams().Lost[enforce.LostForMemory])
		require.Equal(t, g.Datagrams().Lost[enforce.LostForMemory], lost())
		require.Contains(t, <-said, ": those that wait take all the memory")

		end()
		end = func() {}
		require.Eventually(t, func() bool { s := g.Datagrams(); return s.Bytes == 0 && s.Flows <= 1 }, waitTime, pollTime, "nothing is forgotten")
	})
}

// A flow that nothing comes of holds no memory for datagrams.
func TestQuietFlowsTakeNoMemory(t *testing.T) {
	router(t, func(n *network) {
		one := n.echo(n.outside, "198.18.1.2:0", "one")
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: deciding(t, netip.AddrPort{}), Transparent: true, Logf: t.Logf})
		require.NoError(t, err)
		defer g.Close()
		const flows = 100
		before := enforcetest.Heap()
		for range flows {
			require.Equal(t, "one heard hello from 198.18.1.1", n.ask(n.client("198.18.0.2:0"), one, "hello"))
		}
		require.EqualValues(t, flows, g.Datagrams().Flows)
		require.Eventually(t, func() bool { return g.Datagrams().Bytes == 0 }, time.Minute, pollTime)
		require.Less(t, (enforcetest.Heap()-before)/flows, int64(1<<14), "bytes of a flow")
	})
}

// A host that begins flows without end does not keep others from beginning one.
func TestAHostLeavesFlowsOfDatagramsForOthers(t *testing.T) {
	router(t, func(n *network) {
		n.secondHost()
		one := n.echo(n.outside, "198.18.1.2:0", "one")
		const flows = 20
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: permitAll(), Transparent: true, MaxDatagramFlows: flows, Logf: t.Logf})
		require.NoError(t, err)
		defer g.Close()
		for range 3 * flows {
			n.send(n.client("198.18.0.2:0"), one, "hello")
		}
		enforcetest.IsRead(t, g.udp[0].conn)
		require.Equal(t, "one heard hello from 198.18.1.1", n.ask(n.client("198.18.0.3:0"), one, "hello"))
		require.NotZero(t, g.Datagrams().Lost[enforce.LostForFlows])
	})
}

// A host that holds connections open, and never reads, does not keep others from connecting.
func TestAHostLeavesConnectionsForOthers(t *testing.T) {
	router(t, func(n *network) {
		n.secondHost()
		origin := n.serve("origin")
		from := func(host string) (c net.Conn, err error) {
			n.at(n.inside, func() {
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(host)}}
				c, err = d.Dial("tcp4", origin)
			})
			return c, err
		}
		const connections = 20
		for _, transparent := range []bool{false, true} {
			told := make(chan string, 1000)
			g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: permitAll(), Transparent: transparent, MaxConnections: connections,
				Logf: func(format string, args ...any) { told <- fmt.Sprintf(format, args...) }})
			require.NoError(t, err)
			var held []net.Conn
			carried := 0
			for range 3 * connections {
				c, err := from("198.18.0.2")
				if err == nil {
					held = append(held, c)
					if _, err = io.ReadFull(c, make([]byte, len("origin"))); err == nil {
						carried++
					}
				}
			}
			require.Equal(t, connections/2, carried)
			require.Equal(t, "nftgateway: a connection from 198.18.0.2 is reset: there are as many as may be (20), or as many of that host as are left for others", <-told)
			got, err := get(from("198.18.0.3"))
			require.NoError(t, err)
			require.Equal(t, "origin", got)
			for _, c := range held {
				require.NoError(t, c.Close())
			}
			require.Eventually(t, func() bool { got, _ := get(from("198.18.0.2")); return got == "origin" }, waitTime, pollTime)
			require.NoError(t, g.Close())
			require.Zero(t, g.connections.Taken())
		}
	})
}

// secondHost is another one inside, 198.18.0.3.
func (n *network) secondHost() {
	n.at(n.inside, func() {
		addr, err := netlink.ParseAddr("198.18.0.3/24")
		require.NoError(n.t, err)
		peer, err := netlink.LinkByName("in-peer")
		require.NoError(n.t, err)
		require.NoError(n.t, netlink.AddrAdd(peer, addr))
	})
}
