//go:build amd64 || arm64

package seccomp

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// A program can hold up whoever touches its memory, closes its file or locks its socket:
// by a file system that it serves itself (FUSE), or one that hangs (NFS). No signal ends
// that but one that ends this whole process, so the call keeps its thread, and another
// one receives in its place. It costs who does it: a process that has its share of such
// calls waits for them with the next.

const (
	endable = 1 // in worker.since: the monitor may interrupt it; above that bit is the tick
	heldUp  = -1

	holdTicks = 10 // What takes longer, and was not ended, is held up.
	heldEach  = 8  // of one process; 1 when half of all are taken
	maxHeld   = 1024
)

// enter notes that w goes into something that the program can hold up. leave must follow.
func (w *worker) enter() { w.since.Store(w.s.tick.Load() << 1) }

func (w *worker) leave() {
	if w.since.Swap(0) == heldUp {
		w.s.released(w)
	}
}

// hold counts a worker out that does not come back, unless it just did. s.mu is held.
func (s *supervisor) hold(w *worker, since int64) {
	if !w.since.CompareAndSwap(since, heldUp) {
		return
	}
	s.holders[w.holder.Load()]++
	s.held.Add(1)
	s.busy.Add(-1)
	s.replace(w)
}

func (s *supervisor) released(w *worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy.Add(1)
	s.held.Add(-1)
	pid := w.holder.Load()
	if s.holders[pid]--; s.holders[pid] == 0 {
		delete(s.holders, pid)
	}
}

// takeTurn waits, without a thread, while the process of the call has its share of what
// is held up. Without a supervisor its calls would all wait.
func (w *worker) takeTurn() unix.Errno {
	for w.s.held.Load() != 0 {
		free, all := w.s.mayHold(w.t.pid)
		switch {
		case all >= maxHeld:
			return w.fail("look into the program", fmt.Errorf("%d calls wait for memory or files of programs, which do not answer", all))
		case free:
			return 0
		}
		w.asked, w.expires = time.Time{}, time.Now().Add(askEvery)
		w.s.queue(w)
		switch e := w.sleep(); {
		case e != unix.EINPROGRESS:
			return e
		case w.s.stopped.Load():
			return unix.EACCES
		case !w.s.l.valid(&w.n.ID):
			return nobody
		}
	}
	return 0
}

// mayHold reports whether a process has not yet its share, and how many are held up.
func (s *supervisor) mayHold(pid uint32) (free bool, all int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all = int(s.held.Load())
	if all >= maxHeld/2 {
		return s.holders[pid] == 0, all
	}
	return s.holders[pid] < heldEach, all
}
