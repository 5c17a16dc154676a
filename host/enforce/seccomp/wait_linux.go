//go:build amd64 || arm64

package seccomp

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// waitConnect is connect(2), which waits when the socket is a blocking one. If
// that takes long the worker stops receiving and waits without a thread, so
// that any number of connects may wait. The connect goes on meanwhile, and the
// socket keeps its outcome.
//
// It returns interrupted when a signal handler of the program should run first,
// and EINPROGRESS when the program or the supervisor is going away.
func (w *worker) waitConnect(sa []byte) unix.Errno {
	e := w.sysConnect(sa)
	for e == unix.EINTR { // Only the monitor's signal does that.
		if e = w.park(); e != 0 {
			return e
		}
		switch e = w.sysConnect(nowhere); e {
		case unix.EISCONN:
			return 0
		case unix.EINVAL: // Another thread disconnected it.
			return unix.ECONNABORTED
		}
	}
	return e
}

func (w *worker) sysConnect(sa []byte) unix.Errno {
	w.since.Store(w.s.tick.Load())
	e := sysConnect(w.fd, sa)
	w.since.Store(0)
	return e
}

// park waits until the socket has connected or failed, without a thread. Any
// other reason to stop waiting is the errno that it returns.
func (w *worker) park() unix.Errno {
	w.asked, w.expires = 0, time.Time{}
	var limit unix.Timeval
	if getOption(w.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); limit != (unix.Timeval{}) {
		w.expires = time.Now().Add(time.Duration(limit.Nano()))
	}
	if err := w.s.park(w); err != nil { // Too many are watched: hold the thread.
		return w.check(w.s.tick.Load())
	}
	runtime.UnlockOSThread()
	e := <-w.wake
	runtime.LockOSThread()
	w.s.unpark(w)
	return e
}

// check says why a parked connect should stop waiting; 0: it should not.
func (w *worker) check(tick int64) unix.Errno {
	switch {
	case w.s.stopped.Load():
		return unix.EINPROGRESS
	case !w.expires.IsZero() && time.Now().After(w.expires): // SO_SNDTIMEO
		return unix.EINPROGRESS
	case w.asked != 0 && tick-w.asked < askEvery:
		return 0
	}
	w.asked = tick
	switch {
	case !w.s.l.valid(&w.n.ID): // Killed, or interrupted before Linux 5.19.
		return unix.EINPROGRESS
	case w.s.l.killable && w.t.signalPending():
		// WAIT_KILLABLE_RECV holds the signal back. The kernel then does what
		// SA_RESTART says. This must never be answered without a pending signal:
		// it would reach the program.
		return interrupted
	}
	return 0
}

const (
	tickTime = 5 * time.Millisecond
	askEvery = 20 // ticks
)
