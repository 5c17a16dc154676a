//go:build linux

package nftgateway

import (
	"fmt"
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
		n.at(n.inside, func() {
			addr, err := netlink.ParseAddr("198.18.0.3/24")
			require.NoError(t, err)
			peer, err := netlink.LinkByName("in-peer")
			require.NoError(t, err)
			require.NoError(t, netlink.AddrAdd(peer, addr))
		})
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
