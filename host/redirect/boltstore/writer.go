package boltstore

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/calloutd/calloutd/host/redirect/arenastore"
)

// retry is how long the writer waits after a failure, unless somebody asks.
const retry = time.Second

// write is the goroutine of the writer.
func (s *Store) write() {
	defer close(s.ended)
	q, w := s.queue, &s.writer
	var timer <-chan time.Time
	for {
		v := q.view()
		switch {
		case v.empty && v.closed:
			w.end(q, nil)
			return
		case v.empty:
			<-q.wake
			continue
		case !v.urgent:
			if timer == nil {
				timer = time.After(s.pause(v))
			}
			select {
			case <-q.wake:
				continue
			case <-timer:
			}
		}
		timer = nil
		err := w.write(q, s.memory)
		s.tell(v, err)
		if err != nil && v.closed {
			w.end(q, err)
			return
		}
	}
}

func (s *Store) pause(v view) time.Duration {
	if v.failed {
		return retry
	}
	return s.opts.Interval
}

// tell tells of a change between well and not.
func (s *Store) tell(before view, err error) {
	if s.opts.OnWrite != nil && before.failed != (err != nil) {
		s.opts.OnWrite(err)
	}
}

// A writer makes the file what memory is. One goroutine uses it.
type writer struct {
	file    file
	serials []uint64
	// untrusted says that a write failed. Nobody knows what is in the file then:
	// after a failed fsync the kernel may forget what was to be written, and say
	// that all is well the next time. Memory has everything, so the next write
	// makes the file anew.
	untrusted bool
	err       error // how it ended
}

func (w *writer) write(q *queue, memory *arenastore.Store) error {
	var last uint64
	var err error
	if w.untrusted {
		last = q.beginAll()
		err = w.rewrite(memory)
	} else {
		w.serials, last = q.begin(w.serials[:0])
		slices.Sort(w.serials) // The file is a tree by serial.
		w.serials = slices.Compact(w.serials)
		err = w.file.commit(w.serials, memory.AppendEncoded)
	}
	w.untrusted = err != nil
	q.end(last, err)
	if err == nil && w.file.sparse() {
		w.compact(memory)
	}
	return err
}

// rewrite makes the file anew.
func (w *writer) rewrite(memory *arenastore.Store) error {
	serials := memory.Serials()
	slices.Sort(serials)
	return w.file.rewrite(serials, memory.AppendEncoded)
}

// compact makes a file smaller that has grown and shrunk. What cannot be made
// smaller, for want of room for two files, stays in use.
func (w *writer) compact(memory *arenastore.Store) {
	if w.rewrite(memory) != nil {
		w.untrusted = w.file.db == nil
		w.file.compactFrom *= 2
	}
}

// end ends the writer after its last write.
func (w *writer) end(q *queue, err error) {
	if lost := q.stop(); lost > 0 {
		err = fmt.Errorf("%d changes are not on disk: %w", lost, err)
	}
	w.err = errors.Join(err, w.file.close())
}
