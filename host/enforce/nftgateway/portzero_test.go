//go:build linux

package nftgateway

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce"
)

// A datagram with port 0, which a program writes itself (a raw socket) or somebody forges,
// goes nowhere; and no flow is connected to such a port, which would be one to all ports of
// that host, and take its other datagrams.
func TestNothingIsCarriedOfPortZero(t *testing.T) {
	router(t, func(n *network) {
		one := n.echo(n.outside, "198.18.1.2:0", "one")
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: permitAll(), Transparent: true, Logf: t.Logf, OnBlocked: func(d enforce.Denial) { t.Error(d.Err) }})
		require.NoError(t, err)
		defer g.Close()
		raw := func(ns func(func()), protocol int) (fd int) {
			ns(func() {
				var err error
				fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
				require.NoError(t, err)
			})
			t.Cleanup(func() { unix.Close(fd) })
			return fd
		}
		out := raw(func(f func()) { n.at(n.inside, f) }, unix.IPPROTO_UDP)
		heard := raw(func(f func()) { n.at(n.outside, f) }, unix.IPPROTO_UDP)
		send := func(from, to uint16) {
			b := binary.BigEndian.AppendUint16(nil, from)
			b = binary.BigEndian.AppendUint16(b, to)
			b = append(b, 0, 8+4, 0, 0) // length, no checksum
			require.NoError(t, unix.Sendto(out, append(b, "zero"...), 0, &unix.SockaddrInet4{Addr: one.Addr().As4()}))
		}
		send(4711, 0)
		send(0, one.Port())
		send(0, 0)
		c := n.client("198.18.0.2:0")
		require.Equal(t, "one heard hello from 198.18.1.1", n.ask(c, one, "hello"), "what came before is read")
		require.EqualValues(t, 1, g.Datagrams().Flows)
		require.NoError(t, unix.SetsockoptTimeval(heard, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: int64(200 * time.Millisecond / time.Microsecond)}))
		for b := make([]byte, 1500); ; {
			size, _, err := unix.Recvfrom(heard, b, 0)
			if err == unix.EAGAIN {
				break
			}
			require.NoError(t, err)
			require.NotContains(t, string(b[:size]), "zero")
		}
	})
}
