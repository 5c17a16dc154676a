package carry

import (
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/enforce"
)

// An answer has room where others have all, also while what asked for it is not done with.
func TestAnAnswerHasRoom(t *testing.T) {
	b := NewBudget(1<<smallest, 0, t.Logf)
	full := b.Flow(Taker{})
	full.Put(nil)
	defer full.End()
	here, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer here.Close()
	there, err := net.DialUDP("udp4", nil, here.LocalAddr().(*net.UDPAddr))
	require.NoError(t, err)
	defer there.Close()
	f := b.Flow(Taker{})
	defer f.End()
	f.Put([]byte("question"))
	answered := ""
	answer := f.Received(Socket{UDPConn: here}, func(_ context.Context, b []byte) error {
		answered = string(b)
		return nil
	})
	require.NoError(t, f.Queued(func(ctx context.Context, b []byte) error {
		require.Equal(t, "question", string(b))
		_, err := there.Write([]byte("answer"))
		require.NoError(t, err)
		return answer(ctx)
	})(t.Context()))
	require.Equal(t, "answer", answered)
	require.Zero(t, b.Stats().Lost[enforce.LostForMemory])
	require.EqualValues(t, 1<<smallest, b.Stats().Bytes, "of the one that is full")
}
