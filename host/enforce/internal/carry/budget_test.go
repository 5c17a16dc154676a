package carry

import (
	"fmt"
	"net/netip"
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
	b := NewBudget(most, 0, func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) })
	var flows []*Flow
	for range 100 {
		f := b.Flow(Taker{})
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

	f := b.Flow(Taker{})
	for range flowQueue + 3 {
		f.Put(nil)
	}
	require.EqualValues(t, 3, b.Stats().Lost[enforce.LostForQueue])
	f.End()
}

func TestBudgetHasSoManyFlows(t *testing.T) {
	b := NewBudget(0, 0, t.Logf)
	f := b.Flow(Taker{})
	for range DefaultFlows - 1 {
		require.NotNil(t, b.Flow(Taker{}))
	}
	require.Nil(t, b.Flow(Taker{}))
	f.End()
	require.NotNil(t, b.Flow(Taker{}))
	require.EqualValues(t, 1, b.Stats().Lost[enforce.LostForFlows])
}

// One host that takes all flows that it can leaves as many for others, and so do two; an address
// of the same network of IPv6 is no other one.
func TestAHostLeavesFlowsForOthers(t *testing.T) {
	const most = 90
	b := NewBudget(0, most, t.Logf)
	grab := func(host string) (flows []*Flow) {
		for {
			f := b.Flow(Host(netip.MustParseAddr(host)))
			if f == nil {
				return flows
			}
			flows = append(flows, f)
		}
	}
	first := grab("198.18.0.2")
	require.Len(t, first, most/2)
	require.Len(t, grab("2001:db8::2"), most/4+1)
	require.Empty(t, grab("2001:db8::3"))
	require.NotEmpty(t, grab("2001:db8:0:1::2"))
	for _, f := range first[:most/3] {
		f.End()
	}
	require.NotEmpty(t, grab("198.18.0.2"))
}
