//go:build amd64 || arm64

package seccomp

import (
	"runtime"
	"time"
	"unsafe"

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
		if e = w.park(unix.EPOLLOUT, unix.SO_SNDTIMEO); e != 0 {
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
	_, e := w.syscall(unix.SYS_CONNECT, uintptr(w.fd), uintptr(unsafe.Pointer(unsafe.SliceData(sa))), uintptr(len(sa)), 0)
	return e
}

// syscall makes a system call that may wait: when it does the monitor ends it.
//
//go:uintptrescapes
func (w *worker) syscall(nr, a, b, c, d uintptr) (uintptr, unix.Errno) {
	w.since.Store(w.s.tick.Load()<<1 | endable)
	r, _, e := unix.Syscall6(nr, a, b, c, d, 0, 0)
	w.leave()
	return r, e
}

// close closes a descriptor of the program's. It waits where the program's file system
// wants to know that (FUSE), and for what a socket still has to send (SO_LINGER).
func (w *worker) close(fd int) { _, _ = w.syscall(unix.SYS_CLOSE, uintptr(fd), 0, 0, 0) }

// park waits for an event of the socket, without a thread, or until the timeout
// that the program has set. Any other reason to stop waiting is the errno that
// it returns.
func (w *worker) park(events uint32, timeout int) unix.Errno {
	w.patience(timeout)
	return w.rest(events)
}

// await is park until a time, whatever signal waits.
func (w *worker) await(events uint32, until time.Time) unix.Errno {
	for {
		w.asked, w.expires = time.Time{}, until
		if e := w.rest(events); e != interrupted {
			return e
		}
	}
}

func (w *worker) rest(events uint32) unix.Errno {
	if err := w.s.park(w, events); err != nil { // Too many are watched: hold the thread.
		time.Sleep(tickTime)
		return w.check(time.Now())
	}
	return w.sleep()
}

// sleep waits without a thread until it is resumed.
func (w *worker) sleep() unix.Errno {
	runtime.UnlockOSThread()
	e := <-w.wake
	runtime.LockOSThread()
	w.s.unpark(w)
	return e
}

// patience is how long the program wants to wait from now on, by an option of
// the socket.
func (w *worker) patience(timeout int) {
	w.asked, w.expires = time.Time{}, time.Time{}
	var limit unix.Timeval
	if getOption(w.fd, unix.SOL_SOCKET, timeout, &limit); limit != (unix.Timeval{}) {
		w.expires = time.Now().Add(time.Duration(limit.Nano()))
	}
}

// check says why a parked worker should stop waiting; 0: it should not.
func (w *worker) check(now time.Time) unix.Errno {
	switch {
	case w.s.stopped.Load():
		return unix.EINPROGRESS
	case !w.expires.IsZero() && now.After(w.expires):
		return unix.EINPROGRESS
	case now.Sub(w.asked) < askEvery:
		return 0
	}
	w.asked = now
	switch {
	case !w.s.l.valid(&w.n.ID): // Killed, or interrupted before Linux 5.19.
		return unix.EINPROGRESS
	case w.s.l.killable && w.t.signalPending():
		// WAIT_KILLABLE_RECV holds the signal back. The kernel then does what
		// SA_RESTART says. This must never be answered without a pending signal:
		// it would reach the program.
		return interrupted
	case w.carrier.Aborted():
		return unix.ECONNRESET
	}
	return 0
}

const (
	tickTime = 5 * time.Millisecond
	askEvery = 100 * time.Millisecond
)
