//go:build linux

package nftgateway

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A datagram in fragments, of which only the first has ports, is decided as a whole, and
// no part of one that is blocked goes out.
func TestFragmentsAreDecidedAsAWhole(t *testing.T) {
	router(t, func(n *network) { // One: of a new network IPv6 takes seconds to find the neighbours.
		for _, transparent := range []bool{false, true} {
			n.fragments("udp4", "198.18.1.2:25", unix.EHOSTUNREACH, transparent)
			n.fragments("udp6", "[2001:db8:18:1::2]:25", unix.EACCES, transparent)
		}
	})
}

func (n *network) fragments(network, at string, why error, transparent bool) {
	t := n.t
	long := bytes.Repeat([]byte("x"), 4000) // of an MTU of 1500
	var outside net.PacketConn
	n.at(n.outside, func() {
		var err error
		outside, err = net.ListenPacket(network, at)
		require.NoError(t, err)
	})
	defer outside.Close()
	hears := func() string {
		b := make([]byte, 1<<16)
		require.NoError(t, outside.SetReadDeadline(time.Now().Add(time.Minute)))
		l, _, err := outside.ReadFrom(b)
		require.NoError(t, err)
		return string(b[:l])
	}
	inside, err := n.dial(n.inside, network, at)
	require.NoError(t, err)
	defer inside.Close()
	_, err = inside.Write(long)
	require.NoError(t, err)
	require.Equal(t, string(long), hears(), "the way exists")

	g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: deciding(t, netip.AddrPort{}), Transparent: transparent, Logf: t.Logf})
	require.NoError(t, err)
	defer g.Close()
	fresh, err := n.dial(n.inside, network, at) // another flow
	require.NoError(t, err)
	defer fresh.Close()
	require.NoError(t, fresh.SetDeadline(time.Now().Add(time.Minute)))
	_, err = fresh.Write(long)
	require.NoError(t, err)
	_, err = fresh.Read(make([]byte, 1))
	require.ErrorIs(t, err, why)
	own, err := net.Dial(network, at) // The gateway's own is not from inside.
	require.NoError(t, err)
	defer own.Close()
	_, err = own.Write([]byte("after"))
	require.NoError(t, err)
	require.Equal(t, "after", hears(), "no other came before it")
}
