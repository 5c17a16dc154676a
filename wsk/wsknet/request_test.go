package wsknet

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/wsktest"
)

// A context that ends when nothing is under way any more cancels no later call: the
// connection that was made just before must still be able to disconnect.
func TestCancelWithLeavesNothingBehind(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := newRequest()
	defer r.free()
	require.NoError(t, r.cancelWith(ctx, func() error { cancel(); return nil }))
	require.False(t, r.irp.Cancelled())
}

// Both ends notice a peer that is gone without a word.
func TestConnectionsAreKeptAlive(t *testing.T) {
	c := wsktest.Open(t, wsk.Debug{}).Client
	l, err := Listen(t.Context(), c, "127.0.0.1:0")
	require.NoError(t, err)
	dialed, err := (&Dialer{Client: c}).DialContext(t.Context(), "tcp", l.Addr().String())
	require.NoError(t, err)
	accepted, err := l.Accept()
	require.NoError(t, err)
	for _, conn := range []*Conn{dialed.(*Conn), accepted.(*Conn)} {
		alive := make([]byte, 4)
		_, err := do(t.Context(), "keep alive", func(p *wsk.IRP) ntstatus.Status {
			return conn.s.ControlSocket(wsk.GetOption, wsk.SOKeepAlive, wsk.SolSocket, nil, alive, nil, p)
		})
		require.NoError(t, err)
		require.Equal(t, []byte{1, 0, 0, 0}, alive)
		conn.Abort()
	}
	require.NoError(t, l.Close())
}
