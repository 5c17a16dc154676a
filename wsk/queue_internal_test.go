package wsk

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

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

// A job is a request that a test lets end.
type job struct {
	request
	begun, let                chan struct{}
	ended                     chan ntstatus.Status
	interrupts, resumes, left atomic.Int32
}

// newJob is a request that ends when it is let, or when it is interrupted.
func newJob(t *testing.T, c *Client, waited bool) *job {
	j := &job{begun: make(chan struct{}, 8), let: make(chan struct{}, 8), ended: make(chan ntstatus.Status, 1)}
	j.run = func() (ntstatus.Status, int) {
		j.begun <- struct{}{}
		<-j.let
		if j.interrupts.Load() > j.resumes.Load() {
			return ntstatus.Unsuccessful, 0
		}
		return ntstatus.Success, 0
	}
	j.interrupt = func() { j.interrupts.Add(1) }
	j.resume = func() { j.resumes.Add(1) }
	j.unused = func() { j.left.Add(1) }
	if c == nil {
		return j
	}
	irp := AllocateIRP(1)
	irp.SetCompletionRoutine(func(irp *IRP, _ any) ntstatus.Status {
		j.ended <- irp.IoStatus().Status
		return ntstatus.MoreProcessingRequired
	}, nil, InvokeAlways)
	if waited {
		irp.SetSynchronous()
	}
	require.Equal(t, ntstatus.Success, irp.take(c))
	j.c = call{nobody{}, c, irp}
	return j
}

func waiting(q *queue) int { q.mu.Lock(); defer q.mu.Unlock(); return len(q.waiting) }

func works(q *queue) bool { q.mu.Lock(); defer q.mu.Unlock(); return q.working }

// What a stopped queue runs is interrupted and waited for; what waits, and what comes, does
// not run.
func TestQueueThatIsStopped(t *testing.T) {
	c := &Client{provider: &Provider{}}
	var q queue
	runs, waits, late := newJob(t, c, false), newJob(t, c, false), newJob(t, c, false)
	q.push(&runs.request)
	<-runs.begun
	q.push(&waits.request)
	require.Zero(t, runs.interrupts.Load(), "only what has no call yields")
	q.stop()
	require.EqualValues(t, 1, runs.interrupts.Load())
	require.Equal(t, ntstatus.Cancelled, <-waits.ended)
	q.push(&late.request)
	require.Equal(t, ntstatus.Cancelled, <-late.ended)
	joined := make(chan struct{})
	go func() { q.join(); close(joined) }()
	require.Never(t, func() bool { return isClosed(joined) }, 20*time.Millisecond, time.Millisecond)
	runs.let <- struct{}{}
	require.Equal(t, ntstatus.Cancelled, <-runs.ended)
	<-joined
	require.False(t, works(&q))
	q.join()
	require.Empty(t, waits.begun)
	require.Empty(t, late.begun)
	require.Equal(t, []int32{0, 1, 1}, []int32{runs.left.Load(), waits.left.Load(), late.left.Load()})
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Who waits is the worker of the own request, and of no other: what comes meanwhile waits,
// too, and is served then.
func TestSynchronousRequestsOfAQueueTakeTurns(t *testing.T) {
	c := &Client{provider: &Provider{}}
	var q queue
	first, second, third := newJob(t, c, true), newJob(t, c, true), newJob(t, c, false)
	go q.push(&first.request)
	<-first.begun
	q.push(&second.request)
	q.push(&third.request)
	require.Equal(t, 2, waiting(&q))
	for _, j := range []*job{first, second, third} {
		j.let <- struct{}{}
		require.Equal(t, ntstatus.Success, <-j.ended)
	}
	require.Eventually(t, func() bool { return !works(&q) }, time.Minute, time.Millisecond)
}

// What a queue does while nobody waits yields to who comes, goes on afterwards, and ends
// with the queue.
func TestBackgroundOfAQueueYields(t *testing.T) {
	c := &Client{provider: &Provider{}}
	back := newJob(t, nil, false)
	back.interrupt = func() { back.interrupts.Add(1); back.let <- struct{}{} }
	var asked atomic.Int32
	q := queue{background: func() *request {
		asked.Add(1)
		r := back.request
		return &r
	}}
	q.kick()
	<-back.begun
	require.True(t, works(&q))
	q.kick()
	<-back.begun
	require.EqualValues(t, 1, back.interrupts.Load())
	j := newJob(t, c, false)
	q.push(&j.request)
	q.push(&request{c: call{nobody{}, c, newJob(t, c, false).c.irp}, run: func() (ntstatus.Status, int) { return ntstatus.Success, 0 }})
	<-j.begun
	require.Empty(t, back.begun)
	require.EqualValues(t, 2, back.interrupts.Load(), "once, and not again by the second")
	j.let <- struct{}{}
	require.Equal(t, ntstatus.Success, <-j.ended)
	<-back.begun
	q.stop()
	q.join()
	require.Equal(t, back.interrupts.Load(), back.resumes.Load())
	before := asked.Load()
	q.kick()
	require.False(t, works(&q))
	require.Equal(t, before, asked.Load())
}
