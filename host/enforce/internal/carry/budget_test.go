package carry

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/enforce"
)

// Who comes late finds room for something, however much others have taken; and what they
// give back is there again.
func TestBudgetLeavesSomethingToEach(t *testing.T) {
	const most = 1 << 20
	began := time.Now()
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
	const kinds = 2
	require.LessOrEqual(t, len(said), kinds*(2+int(time.Since(began)/time.Second)), "once a second")
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
