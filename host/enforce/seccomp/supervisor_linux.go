//go:build amd64 || arm64

package seccomp

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/calloutd/calloutd/host/enforce/internal/carry"
	"github.com/calloutd/calloutd/host/enforce/internal/routes"
	"github.com/calloutd/calloutd/host/loglimit"
	"golang.org/x/sys/unix"
)

const (
	receivers    = 1   // as long as it keeps up
	maxReceivers = 256 // decisions and connects that hold a thread at once before others wait
)

// A supervisor answers the notifications of one tree.
//
// Each notification wakes every thread that waits in RECV, so there is one
// receiver and it does the work itself. A connect to another host is left to
// another thread, and parked when it waits long. Only when slow decisions keep
// notifications waiting, more receivers are started.
type supervisor struct {
	ctx       context.Context
	cancel    context.CancelCauseFunc
	opts      Options
	log       *loglimit.Log // what a program can cause
	l         listener
	home      uint64 // the network namespace of this process
	targets   targets
	datagrams datagrams
	names     names
	routes    routes.Table
	handed    carry.IDs
	rights

	restarts  restarts
	monitor   monitor
	underway  underway
	tick      atomic.Int64 // counts while the monitor is awake
	asleep    atomic.Bool  // the monitor waits to be poked
	receiving atomic.Int32 // receivers
	busy      atomic.Int32 // workers that answer and are not parked
	served    atomic.Int64
	stopped   atomic.Bool
	watched   chan struct{} // closed when the monitor has ended

	held atomic.Int32 // workers whose call is held up: see holds_linux.go

	mu      sync.Mutex
	threads map[*worker]struct{} // workers that are not parked
	parked  map[int64]*worker    // by descriptor; below 0: they wait for no event
	queued  int64                // the last number below 0
	holders map[uint32]int       // held ones, by process
}

func newSupervisor(ctx context.Context, opts Options) (*supervisor, error) {
	home, err := homeNetns()
	if err != nil {
		return nil, err
	}
	r, err := ownRights()
	if err != nil {
		return nil, err
	}
	m, err := newMonitor()
	if err != nil {
		return nil, err
	}
	s := &supervisor{opts: opts, log: loglimit.New(opts.Logf), home: home, rights: r, monitor: m, datagrams: datagrams{bySender: map[sender]*datagram{}}, watched: make(chan struct{}),
		threads: map[*worker]struct{}{}, parked: map[int64]*worker{}, holders: map[uint32]int{}}
	s.targets.noThread.Store(opts.without.pidfdThread)
	s.tick.Store(1)
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	return s, nil
}

// serve begins to answer what arrives at a listener.
func (s *supervisor) serve(l listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.l = l
	for range receivers {
		s.receive()
	}
	go s.watch()
}

// homeNetns returns the network namespace of this process.
func homeNetns() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return netns(fd), nil
}

// stop makes the workers end and gives up the listener: calls that are still
// trapped fail with ENOSYS. It does not wait long for an ALE that does not return.
func (s *supervisor) stop() {
	s.mu.Lock() // Until it has looked, watch closes nothing.
	s.stopped.Store(true)
	s.monitor.poke()
	s.mu.Unlock()
	s.cancel(nil)
	if s.l.fd == 0 { // It never served.
		s.monitor.close()
		return
	}
	told := s.underway.stop()
	late, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if !over(s.watched, late) {
		s.giveUp()
		if n := s.busy.Load() + s.held.Load(); n > 0 {
			s.opts.Logf("seccomp: %d decisions did not end", n)
		}
	}
	if !over(told, late) {
		s.opts.Logf("seccomp: a callout that was told of a connection did not end")
	}
	s.log.Close()
}

// over waits until something has ended, and reports whether it has. What has is not late,
// however late that is seen.
func over(ended <-chan struct{}, late context.Context) bool {
	select {
	case <-ended:
	case <-late.Done():
	}
	select {
	case <-ended:
		return true
	default:
		return false
	}
}

// giveUp closes the listener while there are workers. The number stays taken, as they still
// use it.
func (s *supervisor) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.working() { // Else watch closes it, and the numbers may be others' already.
		_ = unix.Dup3(s.monitor.event, s.l.fd, unix.O_CLOEXEC)
	}
}

// working reports whether there are workers. Of a supervisor that has stopped there are no
// more once there are none. s.mu is held.
func (s *supervisor) working() bool { return len(s.threads)+len(s.parked) > 0 }

// close is called when no worker is left.
func (s *supervisor) close() {
	s.l.close() // The first: a program waits until then, and the policy may take its time.
	s.monitor.close()
	s.targets.close()
	s.datagrams.close()
	s.routes.Close()
}

const stopTime = time.Second

// receive starts one more receiver. s.mu is held.
func (s *supervisor) receive() {
	w := s.newWorker()
	s.threads[w] = struct{}{}
	s.receiving.Add(1)
	go w.run()
}

// surplus reports whether a receiver may end because others are idle, and
// counts it out.
func (s *supervisor) surplus() bool {
	for {
		n := s.receiving.Load()
		if n <= receivers || n-s.busy.Load() <= receivers {
			return false
		}
		if s.receiving.CompareAndSwap(n, n-1) { // Of several that see one too many only one goes.
			return true
		}
	}
}

// here notes the thread that a worker runs on.
func (s *supervisor) here(w *worker) {
	s.mu.Lock()
	w.thread = unix.Gettid()
	s.mu.Unlock()
}

// end takes note that a worker has ended, and why if not of its own.
func (s *supervisor) end(w *worker, err error) {
	s.mu.Lock()
	delete(s.threads, w)
	s.mu.Unlock()
	if err != nil && err != errGone {
		s.cancel(fmt.Errorf("seccomp: receive: %w", err))
	}
}

// park takes a worker that waits for its connect off its thread. Another one
// receives in its place.
func (s *supervisor) park(w *worker, events uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.monitor.add(w.fd, events|unix.EPOLLONESHOT); err != nil {
		return err
	}
	s.lay(w, int64(w.fd))
	return nil
}

// queue is park for one that waits for no event.
func (s *supervisor) queue(w *worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queued--
	s.lay(w, s.queued)
}

// lay takes a worker off its thread. s.mu is held.
func (s *supervisor) lay(w *worker, place int64) {
	delete(s.threads, w)
	w.place = place
	s.parked[place] = w
	s.busy.Add(-1)
	s.replace(w)
}

// relieve makes another one receive while w waits for its connect.
func (s *supervisor) relieve(w *worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.threads)-int(s.held.Load()) < maxReceivers {
		s.replace(w)
	}
}

// replace starts a receiver in the place of w, once. s.mu is held.
func (s *supervisor) replace(w *worker) {
	if !w.replaced {
		w.replaced = true
		s.receiving.Add(-1)
		s.receive()
	}
}

func (s *supervisor) unpark(w *worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.place >= 0 {
		s.monitor.remove(w.fd)
	}
	delete(s.parked, w.place)
	w.thread = unix.Gettid()
	s.threads[w] = struct{}{}
	s.busy.Add(1)
	select {
	case <-w.wake: // Said twice.
	default:
	}
}
