//go:build amd64 || arm64

package seccomp

import (
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
	"golang.org/x/sys/unix"
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
	carrier     *ale.Carrier // takes its connects through the layers
	in          fwps.Incoming
	seen        token             // what it has where the mark of its thread is; zeros: that was not read
	sa          [sockaddrLen]byte // as the program gave it
	saLen       int
	size        uint32             // what accept4 says saLen is
	to          [sockaddr6Len]byte // where it goes instead
	val         int64              // what the call returns
	pending     unix.Errno         // what a connect answers that has succeeded already
	chosen      choice             // of the datagram
	came        netip.Addr         // valid: where the socket has been connected from
	restartable bool               // it is in supervisor.restarts

	path    [4096]byte // scratch
	payload []byte     // scratch, made when it is needed
	control []byte
	// Its methods as values, which would be made anew at each use.
	connectTo ale.ConnectFunc
	bindTo    ale.BindFunc

	// For the monitor.
	since    atomic.Int64  // see enter; 0: it is in nothing that may wait
	holder   atomic.Uint32 // the process whose call it answers
	place    int64         // in supervisor.parked
	thread   int           // its OS thread
	replaced bool          // another one receives in its place: it ends after this call
	expires  time.Time     // when a parked call gives up; zero: never
	asked    time.Time     // when the monitor last looked after it; zero: not yet
	wake     chan unix.Errno
}

func (s *supervisor) newWorker() *worker {
	w := &worker{s: s, fd: -1, carrier: s.opts.ALE.NewCarrier(), wake: make(chan unix.Errno, 1)}
	w.connectTo, w.bindTo = w.perform, w.performBind
	w.carrier.OnSource(w.sourceOf)
	return w
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
