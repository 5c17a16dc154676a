package echo

import (
	"sync"
)

// A workQueue is WSKSAMPLE_WORK_QUEUE with the thread that empties it.
type workQueue struct {
	mu   sync.Mutex
	more sync.Cond
	list []*opContext
	stop bool
	done chan struct{}
}

// start is WskSampleStartWorkerThread.
func (q *workQueue) start() {
	q.more.L = &q.mu
	q.done = make(chan struct{})
	go q.thread()
}

// enqueue is WskSampleEnqueueOp.
func (q *workQueue) enqueue(op *opContext, handler func(*opContext)) {
	q.mu.Lock()
	op.handler = handler
	q.list = append(q.list, op)
	q.mu.Unlock()
	q.more.Signal()
}

// thread is WskSampleWorkerThread.
func (q *workQueue) thread() {
	defer close(q.done)
	for {
		q.mu.Lock()
		for len(q.list) == 0 && !q.stop {
			q.more.Wait()
		}
		list := q.list
		q.list = nil
		q.mu.Unlock()
		if len(list) == 0 {
			return
		}
		for _, op := range list {
			op.handler(op)
		}
	}
}

// end is WskSampleStopWorkerThread.
func (q *workQueue) end() {
	q.mu.Lock()
	q.stop = true
	q.mu.Unlock()
	q.more.Signal()
	<-q.done
}
