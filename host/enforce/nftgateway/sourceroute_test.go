//go:build linux

package nftgateway

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A router that takes source routes sends what is for itself on, to the next address of
// the route, and connection tracking knows that as a flow to the router.
func TestBypassSourceRoute(t *testing.T) {
	router(t, func(n *network) {
		here, err := netns.Get()
		require.NoError(t, err)
		defer here.Close()
		n.turnOn("ipv4", "accept_source_route")
		inside, outside := n.echo(here, "198.18.0.1:9", "router"), netip.MustParseAddrPort("198.18.1.2:9")
		hears := n.hears(outside)
		try := func(kind byte) {
			c := n.client("198.18.0.2:0")
			n.ask(c, inside, "hello") // This system is left alone.
			raw, err := c.SyscallConn()
			require.NoError(t, err)
			require.NoError(t, raw.Control(func(fd uintptr) {
				route := append([]byte{kind, 7, 4}, inside.Addr().AsSlice()...)
				require.NoError(t, unix.SetsockoptString(int(fd), unix.SOL_IP, unix.IP_OPTIONS, string(route)+"\x00"))
			}))
			n.send(c, outside, "by a route")
			n.ask(n.client("198.18.0.2:0"), inside, "hello again") // It was there before.
		}
		const loose, strict = 131, 137
		try(loose)
		require.Equal(t, "by a route", hears(), "the way exists")
		for _, transparent := range []bool{false, true} {
			for _, kind := range []byte{loose, strict} {
				g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: permitAll(), Transparent: transparent, Logf: t.Logf})
				require.NoError(t, err)
				try(kind)
				sendOwn(t, outside, "after")
				require.Equal(t, "after", hears(), "no other came before it")
				require.NoError(t, g.Close())
			}
		}
	})
}

// So does one that takes the segments of IPv6. Its checksum is right here as well as there,
// since the sums of both addresses are the same.
func TestBypassSegments(t *testing.T) {
	router(t, func(n *network) {
		here, err := netns.Get()
		require.NoError(t, err)
		defer here.Close()
		n.turnOn("ipv6", "seg6_enabled")
		in, err := netlink.LinkByName("in")
		require.NoError(t, err)
		third, err := netlink.ParseAddr("2001:db8:18::3/64")
		require.NoError(t, err)
		third.Flags = unix.IFA_F_NODAD
		require.NoError(t, netlink.AddrAdd(in, third))
		inside, outside := n.echo(here, "[2001:db8:18::3]:9", "router"), netip.MustParseAddrPort("[2001:db8:18:1::2]:9")
		hears := n.hears(outside)
		try := func() {
			c := n.client("[2001:db8:18::2]:0")
			n.ask(c, inside, "hello")
			raw, err := c.SyscallConn()
			require.NoError(t, err)
			require.NoError(t, raw.Control(func(fd uintptr) {
				route := append(append([]byte{0, 4, 4, 1, 1, 0, 0, 0}, outside.Addr().AsSlice()...), inside.Addr().AsSlice()...)
				require.NoError(t, unix.SetsockoptString(int(fd), unix.SOL_IPV6, unix.IPV6_RTHDR, string(route)))
			}))
			n.send(c, outside, "by a route")
			n.ask(n.client("[2001:db8:18::2]:0"), inside, "hello again")
		}
		try()
		require.Equal(t, "by a route", hears(), "the way exists")
		for _, transparent := range []bool{false, true} {
			g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: permitAll(), Transparent: transparent, Logf: t.Logf})
			require.NoError(t, err)
			try()
			sendOwn(t, outside, "after")
			require.Equal(t, "after", hears(), "no other came before it")
			require.NoError(t, g.Close())
		}
	})
}

// turnOn turns a setting of the router and of the host outside on.
func (n *network) turnOn(family, setting string) {
	on := func(device string) {
		for _, of := range []string{"all", device} {
			require.NoError(n.t, os.WriteFile("/proc/sys/net/"+family+"/conf/"+of+"/"+setting, []byte("1"), 0o644))
		}
	}
	on("in")
	n.at(n.outside, func() { on("out-peer") })
}

// hears returns what receives the next datagram at an address outside.
func (n *network) hears(at netip.AddrPort) func() string {
	var c *net.UDPConn
	n.at(n.outside, func() {
		var err error
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		require.NoError(n.t, err)
	})
	n.t.Cleanup(func() { c.Close() })
	return func() string {
		b := make([]byte, 256)
		require.NoError(n.t, c.SetReadDeadline(time.Now().Add(time.Minute)))
		size, err := c.Read(b)
		require.NoError(n.t, err)
		return string(b[:size])
	}
}

// sendOwn sends a datagram of the router itself, which is not from inside.
func sendOwn(t *testing.T, to netip.AddrPort, text string) {
	c, err := net.Dial("udp", to.String())
	require.NoError(t, err)
	_, err = c.Write([]byte(text))
	require.NoError(t, errors.Join(err, c.Close()))
}
