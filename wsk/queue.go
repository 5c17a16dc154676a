package wsk

import (
	"slices"
	"sync"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A queue runs the requests of one direction of a socket one after the other,
// as they came. Its worker exists only while there is something to do.
type queue struct {
	mu      sync.Mutex
	waiting []*request
	running *request
	working bool
	stopped bool
	ended   chan struct{} // closed when a stopped queue has no worker; see join
	// background is what to do while nobody waits, nil for nothing; such a
	// request has no call, and yields to one that has. Optional.
	background func() *request
}

// A request is a call that waits for the transport.
type request struct {
	c call
	// run does the work on the queue's worker. After interrupt it ends early,
	// with a failure unless it had already succeeded.
	run       func() (ntstatus.Status, int)
	interrupt func()
	resume    func() // undoes interrupt for the next request
	// unused runs instead of run, if the request is cancelled before its turn. Optional.
	unused func()

	cancelled bool
}

// withdraw ends a request that has not run.
func (r *request) withdraw() {
	if r.unused != nil {
		r.unused()
	}
	r.c.finish(ntstatus.Cancelled, 0)
}

// push queues r and returns STATUS_PENDING. A caller that waits anyway is the worker
// for its own request if there is none.
func (q *queue) push(r *request) ntstatus.Status {
	waited := r.c.irp.pend(func() { q.cancel(r) }) // Before r can be completed.
	q.mu.Lock()
	if q.stopped || r.cancelled {
		q.mu.Unlock()
		r.withdraw()
		return ntstatus.Pending
	}
	if waited && !q.working { // Without a worker nothing runs or waits.
		q.working, q.running = true, r
		q.mu.Unlock()
		defer func() {
			if more := q.next(); more != nil {
				go q.work(more)
			}
		}()
		q.serve(r)
		return ntstatus.Pending
	}
	q.waiting = append(q.waiting, r)
	q.preempt()
	q.start()
	q.mu.Unlock()
	return ntstatus.Pending
}

// start makes sure that there is a worker. The queue is locked.
func (q *queue) start() {
	if !q.working {
		q.working = true
		go func() { q.work(q.next()) }()
	}
}

// kick makes the worker look for something to do.
func (q *queue) kick() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.background != nil && !q.stopped {
		q.preempt()
		q.start()
	}
}

// preempt ends a background request, so that the worker looks again. The queue
// is locked.
func (q *queue) preempt() {
	if b := q.running; b != nil && b.c.irp == nil && !b.cancelled {
		b.cancelled = true
		b.interrupt()
	}
}

// join waits for the worker of a stopped queue.
func (q *queue) join() {
	q.mu.Lock()
	if !q.working {
		q.mu.Unlock()
		return
	}
	q.ended = make(chan struct{})
	c := q.ended
	q.mu.Unlock()
	<-c
}

// cancel ends one request and leaves the others alone.
func (q *queue) cancel(r *request) {
	q.mu.Lock()
	r.cancelled = true
	if q.running == r {
		r.interrupt()
	}
	i := slices.Index(q.waiting, r)
	if i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
	}
	q.mu.Unlock()
	if i >= 0 {
		r.withdraw()
	}
}

// stop cancels what there is and what will come.
func (q *queue) stop() {
	q.mu.Lock()
	q.stopped = true
	waiting := q.waiting
	q.waiting = nil
	if q.running != nil {
		q.running.cancelled = true
		q.running.interrupt()
	}
	q.mu.Unlock()
	for _, r := range waiting {
		r.withdraw()
	}
}

// work serves r and then what there is.
func (q *queue) work(r *request) {
	for ; r != nil; r = q.next() {
		q.serve(r)
	}
}

func (q *queue) serve(r *request) {
	st, n := ntstatus.Unsuccessful, 0
	defer func() { // Also when it panics; see call.run.
		q.mu.Lock()
		q.running = nil
		if r.cancelled {
			r.resume()
			if !st.Ok() {
				st = ntstatus.Cancelled // IRP-10
			}
		}
		q.mu.Unlock()
		if r.c.irp != nil {
			r.c.finish(st, n)
		}
	}()
	st, n = r.run()
}

// next is what the worker does next; nil ends it.
func (q *queue) next() *request {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case len(q.waiting) > 0:
		q.running = q.waiting[0]
		q.waiting = slices.Delete(q.waiting, 0, 1)
	case q.background != nil && !q.stopped:
		q.running = q.background()
	}
	if q.running == nil {
		q.working = false
		if q.ended != nil {
			close(q.ended)
		}
	}
	return q.running
}
