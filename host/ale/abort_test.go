package ale_test

import (
	"context"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// CO-FLW-03: what a callout aborts while it is let go is given up, and the next is not.
func TestConnectThatIsAbortedMeanwhile(t *testing.T) {
	k := new(keeper)
	e := ale.New(ale.Options{Classifier: engine(t, nil, k, fwpm.LayerALEAuthConnectV4), Store: memstore.New(0)})
	s := tcpSocket(e)
	defer s.Close()
	_, err := s.Connect(t.Context(), origin, func(ctx context.Context, _ ale.Target) (netip.AddrPort, error) {
		k.flows[0].Abort()
		<-ctx.Done()
		return netip.AddrPort{}, ctx.Err()
	})
	require.ErrorIs(t, err, ale.ErrAborted)
	require.NotErrorIs(t, err, context.Canceled, "which is what the socket's owner does")
	f, err := s.Connect(t.Context(), origin, fromClient)
	require.NoError(t, err)
	f.Close()

	c := e.NewCarrier()
	require.ErrorIs(t, carry(c, app().in, nil, func(ctx context.Context, _ ale.Target) (netip.AddrPort, error) {
		require.False(t, c.Aborted())
		k.flows[2].Abort()
		require.True(t, c.Aborted())
		return netip.AddrPort{}, context.DeadlineExceeded
	}), ale.ErrAborted)
	require.False(t, c.Aborted())
}
