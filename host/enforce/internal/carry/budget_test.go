package carry

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/enforce"
)

// Who comes late finds room for something, however much others have taken; and what they
// give back is there again.
func TestBudgetLeavesSomethingToEach(t *testing.T) {
	const most = 1 << 20
	var said []string
	b := NewBudget(most, func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) })
	var flows []*Flow
	for range 100 {
		f := b.Flow()
		flows = append(flows, f)
		f.Put(make([]byte, 1500))
		require.EqualValues(t, 1<<smallest, f.queued.Load())
		for range flowQueue {
			f.Put(make([]byte, MaxDatagram-100))
		}
		require.LessOrEqual(t, b.Stats().Bytes, int64(most+len(flows)<<smallest))
	}
	require.NotEmpty(t, said)
	require.LessOrEqual(t, len(said), 5, "once a second")
	require.Contains(t, said[0], "datagrams get lost, 1 up to now: those that wait take all the memory")
	require.NotZero(t, b.Stats().Lost[enforce.LostForMemory])
	for _, f := range flows {
		f.End()
	}
	require.Zero(t, b.Stats().Bytes)
	require.Zero(t, b.Stats().Flows)

	f := b.Flow()
	for range flowQueue + 3 {
		f.Put(nil)
	}
	require.EqualValues(t, 3, b.Stats().Lost[enforce.LostForQueue])
	f.End()
}

func TestBudgetHasSoManyFlows(t *testing.T) {
	b := NewBudget(0, t.Logf)
	f := b.Flow()
	for range maxFlows - 1 {
		require.NotNil(t, b.Flow())
	}
	require.Nil(t, b.Flow())
	f.End()
	require.NotNil(t, b.Flow())
	require.EqualValues(t, 1, b.Stats().Lost[enforce.LostForFlows])
}

// An answer has room where others have all, also while what asked for it is not done with.
func TestAnAnswerHasRoom(t *testing.T) {
	b := NewBudget(1<<smallest, t.Logf)
	full := b.Flow()
	full.Put(nil)
	defer full.End()
	here, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer here.Close()
	there, err := net.DialUDP("udp4", nil, here.LocalAddr().(*net.UDPAddr))
	require.NoError(t, err)
	defer there.Close()
	f := b.Flow()
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
