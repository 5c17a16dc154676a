//go:build linux

package nftgateway

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

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
		try := func() (string, error) { return get(n.dial(n.inside, "tcp4", blocked)) }
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

// TPROXY loses what comes through a bridge where br_netfilter is on, as Docker leaves it.
func TestTransparentBridgeNeedsThatBrNetfilterIsOff(t *testing.T) {
	router(t, func(n *network) {
		n.bridge()
		n.brNetfilter("1")
		permitted := n.serveAt("tcp4", "198.18.1.2:80", "80")
		o := Options{Interfaces: []string{"br"}, ALE: deciding(t, netip.AddrPort{}), Transparent: true, Logf: t.Logf}
		_, err := Start(t.Context(), o)
		require.EqualError(t, err, "nftgateway: interface br is a bridge, and br_netfilter loses what TPROXY takes there: as root, "+
			"sysctl net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0, or do without --transparent")
		n.brNetfilter("0")
		g, err := Start(t.Context(), o)
		require.NoError(t, err)
		defer g.Close()
		got, err := get(n.dial(n.inside, "tcp4", permitted))
		require.NoError(t, err)
		require.Equal(t, "80", got)
	})
}

// brNetfilter says whether packets of bridges are shown to iptables. It has to be loaded.
func (n *network) brNetfilter(on string) {
	for _, key := range []string{"iptables", "ip6tables"} {
		require.NoError(n.t, os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+key, []byte(on), 0o644))
	}
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

// A gateway goes on deciding whatever becomes of its interfaces and rules.
func TestDecidesAfterChanges(t *testing.T) {
	for name, change := range map[string]func(n *network, g *Gateway){
		"the interface becomes a port of a bridge": func(n *network, g *Gateway) {
			if g.opts.Transparent {
				n.brNetfilter("0")
			}
			n.bridge()
		},
		"it is renamed": func(n *network, _ *Gateway) {
			in := n.link("in")
			require.NoError(n.t, netlink.LinkSetDown(in))
			require.NoError(n.t, netlink.LinkSetName(in, "other"))
			require.NoError(n.t, netlink.LinkSetUp(in))
		},
		"it is made again": func(n *network, _ *Gateway) {
			require.NoError(n.t, netlink.LinkDel(n.link("in")))
			n.wire(n.inside, "in", "198.18.0", "2001:db8:18:0")
		},
		"it has another address": func(n *network, _ *Gateway) {
			addr, err := netlink.ParseAddr("198.18.0.1/24")
			require.NoError(n.t, err)
			require.NoError(n.t, netlink.AddrDel(n.link("in"), addr))
			addr.IP[len(addr.IP)-1] = 9
			require.NoError(n.t, netlink.AddrAdd(n.link("in"), addr))
			n.at(n.inside, func() {
				require.NoError(n.t, netlink.RouteReplace(&netlink.Route{Gw: addr.IP}))
			})
		},
		"the connections that are tracked are forgotten": func(n *network, _ *Gateway) {
			require.NoError(n.t, netlink.ConntrackTableFlush(netlink.ConntrackTable))
		},
		"all rules of the system are removed": func(n *network, g *Gateway) {
			c, err := nftables.New()
			require.NoError(n.t, err)
			c.FlushRuleset()
			require.NoError(n.t, c.Flush())
			require.Eventually(n.t, func() bool { g.mu.Lock(); defer g.mu.Unlock(); return g.inForce() }, waitTime, pollTime)
		},
		"a chain is emptied": func(n *network, g *Gateway) {
			c, err := nftables.New()
			require.NoError(n.t, err)
			table := &nftables.Table{Name: "calloutd", Family: nftables.TableFamilyINet}
			c.FlushChain(&nftables.Chain{Table: table, Name: "take"})
			require.NoError(n.t, c.Flush())
			require.Eventually(n.t, func() bool { g.mu.Lock(); defer g.mu.Unlock(); return g.inForce() }, waitTime, pollTime)
		},
		"rules that were saved of an earlier gateway are put back": func(n *network, g *Gateway) {
			require.NoError(n.t, install(&g.opts, ports{tcp: families[uint16]{9, 9}, run: "run EARLIER"}, g.site))
			require.Eventually(n.t, func() bool { g.mu.Lock(); defer g.mu.Unlock(); return g.inForce() }, waitTime, pollTime)
		},
		"and one that had another interface": func(n *network, g *Gateway) {
			other := *g.site
			other.names, other.numbers = []string{"eth9"}, []uint32{9}
			require.NoError(n.t, install(&g.opts, g.ports, &other))
			require.Eventually(n.t, func() bool { g.mu.Lock(); defer g.mu.Unlock(); return g.inForce() }, waitTime, pollTime)
		},
	} {
		for _, transparent := range []bool{false, true} {
			t.Run(fmt.Sprint(name, map[bool]string{true: ", transparent"}[transparent]), func(t *testing.T) {
				router(t, func(n *network) { n.decidesAfter(change, transparent) })
			})
		}
	}
}

func (n *network) decidesAfter(change func(*network, *Gateway), transparent bool) {
	t := n.t
	permitted, blocked := n.serveAt("tcp4", "198.18.1.2:80", "80"), n.serveAt("tcp4", "198.18.1.2:25", "25")
	g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: deciding(t, netip.AddrPort{}), Transparent: transparent, Logf: t.Logf})
	require.NoError(t, err)
	defer g.Close()
	for range 2 {
		got, err := get(n.dial(n.inside, "tcp4", permitted))
		require.NoError(t, err)
		require.Equal(t, "80", got)
		_, err = get(n.dial(n.inside, "tcp4", blocked))
		require.ErrorIs(t, err, unix.ECONNRESET)
		if change != nil {
			change(n, g)
		}
		change = nil
	}
}

func (n *network) link(name string) netlink.Link {
	l, err := netlink.LinkByName(name)
	require.NoError(n.t, err)
	return l
}

// There is no moment in which what a port of a bridge receives goes through: it comes in
// nowhere until the rules know its bridge.
func TestPortOfABridgeWaitsForTheRules(t *testing.T) {
	router(t, func(n *network) {
		blocked := n.serveAt("tcp4", "198.18.1.2:25", "25")
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: deciding(t, netip.AddrPort{}), Logf: t.Logf})
		require.NoError(t, err)
		defer g.Close()
		require.True(t, g.site.bridges)
		g.mu.Lock() // It sees nothing yet.
		n.bridge()
		failed := make(chan error, 1)
		go func() {
			_, err := get(n.dial(n.inside, "tcp4", blocked))
			failed <- err
		}()
		const synSent = " 02 "
		n.at(n.inside, func() {
			for sent := false; !sent && len(failed) == 0; {
				b, err := os.ReadFile("/proc/thread-self/net/tcp")
				require.NoError(t, err)
				sent = strings.Contains(string(b), synSent)
			}
		})
		require.Empty(t, failed)
		g.mu.Unlock()
		require.ErrorIs(t, <-failed, unix.ECONNRESET)
	})
}

const waitTime, pollTime = time.Minute, time.Millisecond

// Lists of the kernel's that change while they are read are read again: where interfaces come and
// go all the time nothing is told for that, and rules that somebody takes away are put back.
func TestInterfacesThatComeAndGoAreNoFailure(t *testing.T) {
	router(t, func(n *network) {
		pair := func(name string) netlink.Link {
			l := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "-peer"}
			require.NoError(t, netlink.LinkAdd(l))
			return l
		}
		for i := range 250 {
			pair(fmt.Sprint("eth", i))
		}
		told := make(chan string, 1000)
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: permitAll(), Transparent: true, Logf: func(format string, args ...any) { told <- fmt.Sprintf(format, args...) }})
		require.NoError(t, err)
		for range 150 {
			require.NoError(t, netlink.LinkDel(pair("container")))
		}
		require.Empty(t, told)
		c, err := nftables.New()
		require.NoError(t, err)
		c.FlushRuleset()
		require.NoError(t, c.Flush())
		inForce := func() bool { g.mu.Lock(); defer g.mu.Unlock(); return g.inForce() }
		for begin := time.Now(); !inForce(); require.Less(t, time.Since(begin), waitTime) {
			require.NoError(t, netlink.LinkDel(pair("container")))
		}
		require.NoError(t, g.Close())
		require.Len(t, told, 1)
		require.Contains(t, <-told, "somebody took rules")
	})
}
