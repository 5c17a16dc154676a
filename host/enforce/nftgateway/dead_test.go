//go:build linux

package nftgateway

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/internal/unreachable"
)

// die leaves what a gateway leaves that was killed: everything but its rules, guard, rule and
// route is gone.
func (g *Gateway) die(t *testing.T) {
	g.cancel()
	for _, l := range append([]*net.TCPListener{}, g.listen...) {
		require.NoError(t, l.Close())
	}
	for _, d := range g.udp {
		require.NoError(t, d.conn.Close())
	}
	g.wg.Wait()
	require.NoError(t, g.guard.c.CloseLasting())
	require.NoError(t, g.lock.Close())
}

// Connection tracking knows a flow that a gateway has carried, and would let it go on to
// where it was going once nobody takes it.
func TestFlowsOfADeadGatewayEnd(t *testing.T) {
	router(t, func(n *network) {
		for network, at := range map[string]string{"udp4": "198.18.1.2:9", "udp6": "[2001:db8:18:1::2]:9"} {
			origin := n.echo(n.outside, at, "origin")
			g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: permitAll(), Transparent: true, Logf: t.Logf})
			require.NoError(t, err)
			c, err := n.dial(n.inside, network, origin.String())
			require.NoError(t, err)
			defer c.Close()
			require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
			b := make([]byte, 64)
			for range 3 { // The tracked flow has seen both directions.
				_, err = c.Write([]byte("decided"))
				require.NoError(t, err)
				_, err = c.Read(b)
				require.NoError(t, err)
			}
			g.die(t)
			_, err = c.Write([]byte("undecided"))
			require.NoError(t, err)
			size, err := c.Read(b)
			want := unix.EHOSTUNREACH
			if network == "udp6" {
				want = unix.EACCES
			}
			require.ErrorIs(t, err, want, "%s", b[:size])
			require.NoError(t, Remove(""))
		}
	})
}

// Who is inside may write what he wants into an error about a datagram that he got, and
// it is of a flow that is known ("related"): it does not go out either.
func TestErrorsFromInsideCarryNothingOut(t *testing.T) {
	router(t, func(n *network) {
		origin := n.echo(n.outside, "198.18.1.2:9", "origin")
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: permitAll(), Transparent: true, Logf: t.Logf})
		require.NoError(t, err)
		defer g.Close()
		var heard int
		n.at(n.outside, func() { heard, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP) })
		require.NoError(t, err)
		defer unix.Close(heard)
		c := n.client("198.18.0.2:0")
		n.ask(c, origin, "hello")
		n.at(n.inside, func() {
			unreachable.New(t.Logf).Tell(origin, c.LocalAddr().(*net.UDPAddr).AddrPort(), unreachable.PortClosed)
		})
		// A ping from outside is answered after it.
		require.NoError(t, unix.SetsockoptTimeval(heard, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 60}))
		require.NoError(t, unix.Sendto(heard, []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}, 0, &unix.SockaddrInet4{Addr: [4]byte{198, 18, 0, 2}}))
		const header, echoReply = 20, 0
		b := make([]byte, 256)
		size, _, err := unix.Recvfrom(heard, b, 0)
		require.NoError(t, err)
		require.Equal(t, byte(echoReply), b[header], "%d bytes have gone out", size)
	})
}
