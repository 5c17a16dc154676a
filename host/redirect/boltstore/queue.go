package boltstore

import (
	"context"
	"fmt"
	"sync"

	"github.com/calloutd/calloutd/host/redirect"
)

// A queue has the serials of the hops that changed and are not on disk, by age.
// What changed is not in it: the writer looks at the hop when it writes it, so a
// hop that came and went in between costs nothing.
//
// Changes are numbered from 1 on; that of the first serial is done+1.
type queue struct {
	limit, batch int
	wake         chan struct{} // has an element when the writer should look

	mu      sync.Mutex
	serials []uint64
	done    uint64        // changes that are on disk
	begun   uint64        // writes
	writes  uint64        // that ended
	tried   uint64        // changes that the last write was about
	err     error         // of the last write
	ended   chan struct{} // closed when a write ends
	asked   bool          // somebody waits for the next write
	closed  bool          // no more changes
	stopped bool          // no more writes
}

func newQueue(limit, batch int) *queue {
	return &queue{limit: limit, batch: batch, wake: make(chan struct{}, 1), ended: make(chan struct{})}
}

var errClosed = fmt.Errorf("%w: it is closed", redirect.ErrUnavailable)

// put adds a change that can be refused: when the disk fails, and when it is so
// slow that the queue is full.
func (q *queue) put(serial uint64) (change uint64, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return 0, errClosed
	case q.err != nil:
		return 0, fmt.Errorf("%w: %w", redirect.ErrUnavailable, q.err)
	case len(q.serials) >= q.limit:
		return 0, fmt.Errorf("%w: %d changes wait for the disk, the limit; the disk is too slow for so many redirects", redirect.ErrUnavailable, len(q.serials))
	}
	return q.add(serial), nil
}

// gone adds that a hop went. That cannot be refused, and the queue does not grow
// without end by it: every hop goes once.
func (q *queue) gone(serial uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.add(serial)
	}
}

func (q *queue) add(serial uint64) (change uint64) {
	q.serials = append(q.serials, serial)
	if n := len(q.serials); q.err == nil && (n == 1 || n >= q.batch) {
		q.look()
	}
	return q.newestLocked()
}

// look lets the writer look at the queue.
func (q *queue) look() {
	select {
	case q.wake <- struct{}{}:
	default: // It will.
	}
}

// newest is the last change so far, and how many writes have begun: the last of them may
// be under way.
func (q *queue) newest() (change, begun uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.newestLocked(), q.begun
}

// len is how many changes are not on disk.
func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.serials)
}

func (q *queue) newestLocked() uint64 { return q.done + uint64(len(q.serials)) }

// wait waits until a change is on disk. It returns the error of the first write after so
// many that is about the change and fails.
func (q *queue) wait(ctx context.Context, change, after uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.done < change {
		switch {
		case q.err != nil && q.writes > after && q.tried >= change:
			return q.err
		case q.stopped:
			return errClosed
		case ctx.Err() != nil:
			return ctx.Err()
		}
		q.asked = true
		q.look()
		ended := q.ended
		q.mu.Unlock()
		select {
		case <-ended:
		case <-ctx.Done():
		}
		q.mu.Lock()
	}
	return nil
}

// close refuses changes from here on. The writer stops after one more write.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.look()
}

// A view is what the writer sees of the queue.
type view struct {
	empty, urgent, closed, failed bool
}

func (q *queue) view() view {
	q.mu.Lock()
	defer q.mu.Unlock()
	return view{
		empty:  len(q.serials) == 0,
		urgent: q.asked || q.closed || q.err == nil && len(q.serials) >= q.batch,
		closed: q.closed,
		failed: q.err != nil,
	}
}

// begin returns the serials of the oldest changes, as many as a batch has, and the
// number of the last one.
func (q *queue) begin(into []uint64) (serials []uint64, last uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asked = false
	q.begun++
	serials = append(into, q.serials[:min(q.batch, len(q.serials))]...)
	return serials, q.done + uint64(len(serials))
}

// beginAll is begin for a write of everything.
func (q *queue) beginAll() (last uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asked = false
	q.begun++
	return q.newestLocked()
}

// end tells how the write of all changes up to the last one ended.
func (q *queue) end(last uint64, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.writes++
	q.tried, q.err = last, err
	if err == nil {
		n := copy(q.serials, q.serials[last-q.done:])
		q.serials = q.serials[:n]
		q.done = last
	}
	close(q.ended)
	q.ended = make(chan struct{})
}

// stop tells that there will be no more writes, and returns how many changes are
// not on disk.
func (q *queue) stop() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	close(q.ended)
	return len(q.serials)
}
