//go:build amd64 || arm64

package seccomp

import (
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/calloutd/calloutd/host/fwps"
	"golang.org/x/sys/unix"
)

// Answers that are no error numbers.
const (
	interrupted unix.Errno = 512       // ERESTARTSYS: a signal handler runs first. See worker.interruptible.
	proceed     unix.Errno = 1<<16 + 1 // let the program's own call run
	nobody      unix.Errno = 1<<16 + 2 // the caller is gone: the answer reaches nobody
)

// A worker receives notifications and answers each before it takes the next.
// All that it needs for one lives in it, so that a connect allocates nothing.
type worker struct {
	s *supervisor
	n notif
	r response

	// About the call being answered.
	t           *target
	fd          int // the program's socket, in this process; -1: none
	sock        socket
	in          fwps.Incoming
	sa          [sockaddrLen]byte // as the program gave it
	saLen       int
	to          [sockaddr6Len]byte // where it is redirected to
	connected   bool
	restartable bool // it is in supervisor.restarts

	path [4096]byte // scratch

	// For the monitor.
	since    atomic.Int64 // the tick at which it went into connect(); 0: it is not there
	thread   int          // its OS thread
	replaced bool         // another one receives in its place: it ends after this call
	expires  time.Time    // when a parked connect gives up; zero: never
	asked    int64        // the tick at which the monitor last looked after it; 0: not yet
	wake     chan unix.Errno
}

func (s *supervisor) newWorker() *worker {
	return &worker{s: s, fd: -1, wake: make(chan unix.Errno, 1)}
}

// run receives until the tree is gone or there are enough others.
func (w *worker) run() {
	s := w.s
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s.here(w)
	for {
		err := s.l.recv(&w.n)
		switch {
		case s.stopped.Load() && err == nil:
			w.reply(unix.EACCES)
			fallthrough
		case s.stopped.Load():
			s.end(w, nil)
			return
		case err == unix.EINTR:
			continue
		case err != nil:
			s.end(w, err)
			return
		}
		s.busy.Add(1)
		if s.asleep.Load() {
			s.monitor.poke()
		}
		w.reply(w.answer())
		s.busy.Add(-1)
		s.served.Add(1)
		if w.replaced || s.surplus() {
			s.end(w, nil)
			return
		}
	}
}

// answer decides one notification and lets go of what it took for that.
func (w *worker) answer() unix.Errno {
	e := w.take()
	if e == 0 {
		e = w.connect()
	}
	if w.fd >= 0 { // Before the reply: the program may count on having the last reference.
		unix.Close(w.fd)
		w.fd = -1
	}
	if w.t != nil {
		w.s.targets.give(w.t)
		w.t = nil
	}
	return e
}

// take gets hold of the calling thread and of its socket, and says whose it is.
func (w *worker) take() unix.Errno {
	for {
		t, cached, err := w.s.targets.take(w.n.TID)
		if err != nil {
			return w.fail("open the thread", err)
		}
		fd, err := t.getFD(int32(w.n.Data.Args[0])) // The kernel reads an int.
		if err == nil {
			if err = w.identify(t); err == nil {
				w.t, w.fd = t, fd
				return 0
			}
			unix.Close(fd)
		}
		if cached && err != unix.EBADF { // Perhaps of a former thread of that number.
			t.close()
			continue
		}
		w.s.targets.give(t)
		if err == unix.EBADF {
			return unix.EBADF
		}
		return w.fail("look into the program", err)
	}
}

// identify says who is calling.
func (w *worker) identify(t *target) error {
	exe, uid, err := t.identify(w.path[:])
	if err != nil {
		return err
	}
	w.in = fwps.Incoming{ProcessID: t.pid, AppID: exe, UserID: uid, UserKnown: true}
	return nil
}

// sockaddr reads the address that the program gave.
func (w *worker) sockaddr(addr uint64, length int32) ([]byte, unix.Errno) {
	if length < 0 || int(length) > len(w.sa) {
		return nil, unix.EINVAL
	}
	w.saLen = int(length)
	sa := w.sa[:length]
	switch e := readMemory(w.n.TID, addr, sa); e {
	case 0:
		return sa, 0
	case unix.EFAULT:
		return nil, e
	default:
		return nil, w.fail("read the address", e)
	}
}

// fail answers a call that the supervisor could not look into. What it cannot
// see does not connect.
func (w *worker) fail(what string, err error) unix.Errno {
	if !w.s.l.valid(&w.n.ID) {
		return nobody
	}
	hint := ""
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		hint = " (is the program non-dumpable, or another user's?)"
	}
	w.s.opts.Logf("seccomp: thread %d: refused: cannot %s: %v%s", w.n.TID, what, err, hint)
	return unix.EACCES
}

func (w *worker) reply(e unix.Errno) {
	w.r = response{ID: w.n.ID, Error: -int32(e)}
	if e == proceed {
		w.r.Error, w.r.Flags = 0, unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
	}
	delivered := w.s.l.send(&w.r)
	if w.restartable {
		w.restartable = false
		w.s.restarts.end(w, e, delivered)
	}
}
