package localproxy

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/wsknet"
	"github.com/calloutd/calloutd/wsk/wsktest"
)

// ends makes two connections of a client: each with the peer that it has.
func ends(t *testing.T) (a, b *wsknet.Conn, peerA, peerB net.Conn) {
	c := wsktest.Open(t, wsk.Debug{Verifier: wsktest.Verifier(t)})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	dial := func() (*wsknet.Conn, net.Conn) {
		c, err := (&wsknet.Dialer{Client: c.Client}).DialContext(t.Context(), "tcp", l.Addr().String())
		require.NoError(t, err)
		peer, err := l.Accept()
		require.NoError(t, err)
		t.Cleanup(func() { peer.Close() })
		return c.(*wsknet.Conn), peer
	}
	a, peerA = dial()
	b, peerB = dial()
	return a, b, peerA, peerB
}

// A proxy that ends when one direction of a relay has begun and the other not yet
// ends all the same: what moves bytes from b holds a, and waits for b.
func TestAbortEndsARelayThatHasBegunOneWay(t *testing.T) {
	a, b, peerA, peerB := ends(t)
	moved := make(chan error)
	go func() { _, err := io.Copy(a, b); moved <- err }()
	_, err := peerB.Write([]byte("x"))
	require.NoError(t, err)
	_, err = io.ReadFull(peerA, make([]byte, 1))
	require.NoError(t, err, "it has begun")
	abort(a, b)
	require.ErrorIs(t, <-moved, net.ErrClosed)
}

// A connection that cannot have the records is not made: the callouts would send it to the
// proxy again.
func TestNamedFailsAsControlDoes(t *testing.T) {
	no := errors.New("no")
	for _, name := range []string{"", "good.example"} {
		control := named(name, netip.AddrPort{}, func(string, string, syscall.RawConn) error { return no })
		require.ErrorIs(t, control("tcp", "", nil), no)
	}
}
