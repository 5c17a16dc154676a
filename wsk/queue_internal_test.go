package wsk

import (
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

type nobody struct{}

func (nobody) leave() {}

// Requests of one direction run one after the other, as they came, although each finds a
// queue that has something to do.
func TestQueueRunsOneRequestAtATime(t *testing.T) {
	client := &Client{provider: &Provider{}}
	var q queue
	var running, overlaps atomic.Int32
	var order, want []int
	done := make(chan struct{}, 1)
	const n = 100
	for i := range n {
		irp := AllocateIRP(1)
		irp.SetCompletionRoutine(func(*IRP, any) ntstatus.Status { done <- struct{}{}; return ntstatus.MoreProcessingRequired }, nil, InvokeAlways)
		require.Equal(t, ntstatus.Success, irp.take(client))
		q.push(&request{c: call{nobody{}, client, irp}, run: func() (ntstatus.Status, int) {
			if running.Add(1) > 1 {
				overlaps.Add(1)
				return ntstatus.Unsuccessful, 0
			}
			for range 10 {
				runtime.Gosched()
			}
			order = append(order, i)
			running.Add(-1)
			return ntstatus.Success, 0
		}})
		want = append(want, i)
	}
	for range n {
		<-done
	}
	require.Zero(t, overlaps.Load())
	require.Equal(t, want, order)
}
