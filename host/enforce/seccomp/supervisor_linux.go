//go:build amd64 || arm64

package seccomp

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A supervisor answers the notifications of one tree.
//
// Each notification wakes every thread that waits in RECV, so there are few
// receivers and they do the work themselves. Only when all of them are stuck,
// as in a connect to a host that does not answer, one more is started.
type supervisor struct {
	ctx    context.Context
	cancel context.CancelFunc
	opts   Options
	fd     int

	idle    atomic.Int32
	count   atomic.Int32 // receivers, and one for Run: the last one out closes fd
	served  atomic.Int64
	stopped atomic.Bool
	done    chan struct{}

	mu      sync.Mutex
	threads map[int]struct{}      // receivers, by thread
	sockets map[uint64]*socketUse // by SO_COOKIE
	lost    map[uint32]result     // by thread: results whose reply found nobody waiting
	running map[*op]struct{}
}

// A socketUse serializes the connects of one socket.
type socketUse struct {
	mu    sync.Mutex
	users int
}

// A call identifies a connect() of a thread. The kernel restarts one that a
// signal interrupted as a new notification with the same values.
type call struct {
	ip     uint64
	args   [6]uint64
	cookie uint64
}

type result struct {
	call  call
	errno unix.Errno
}

// An op is a connect under way.
type op struct {
	tid uint32
	id  uint64

	mu       sync.Mutex // held while replying and while fd is used by another thread
	since    time.Time  // when it began to wait for a connect; zero: it does not, so no signal interrupts it
	answered bool       // by interrupt
	fd       int        // -1 when closed
}

func newSupervisor(ctx context.Context, opts Options, fd int) *supervisor {
	s := &supervisor{opts: opts, fd: fd, done: make(chan struct{}), threads: map[int]struct{}{},
		sockets: map[uint64]*socketUse{}, lost: map[uint32]result{}, running: map[*op]struct{}{}}
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.count.Store(receivers + 1)
	for range receivers {
		go s.receive()
	}
	go s.monitor()
	return s
}

// stop makes the receivers end; the last one closes the listener. It does not
// wait for an ALE that does not return.
func (s *supervisor) stop() {
	s.stopped.Store(true)
	s.cancel()
	s.leave()
	for range 100 {
		s.mu.Lock()
		for o := range s.running {
			o.mu.Lock()
			if o.fd >= 0 { // Nobody waits for it any more.
				_ = unix.Shutdown(o.fd, unix.SHUT_RDWR)
			}
			o.mu.Unlock()
		}
		for tid := range s.threads {
			_ = unix.Tgkill(unix.Getpid(), tid, unix.SIGURG) // Go ignores it; RECV does not.
		}
		s.mu.Unlock()
		select {
		case <-s.done:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
	s.opts.Logf("seccomp: %d receivers are still busy", s.count.Load())
}

func (s *supervisor) receive() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tid := unix.Gettid()
	s.mu.Lock()
	s.threads[tid] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.threads, tid)
		s.mu.Unlock()
		s.leave()
	}()
	n := new(notif)
	for !s.stopped.Load() {
		s.idle.Add(1)
		err := recv(s.fd, n)
		s.idle.Add(-1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			if err != errGone {
				s.opts.Logf("seccomp: receive: %v", err)
			}
			return
		}
		s.served.Add(1)
		if s.stopped.Load() {
			s.reply(n.ID, unix.EACCES)
			return
		}
		s.connect(n)
		if s.count.Load() > receivers+1 && s.idle.Load() >= receivers {
			return
		}
	}
}

func (s *supervisor) leave() {
	if s.count.Add(-1) == 0 {
		unix.Close(s.fd)
		close(s.done)
	}
}

// monitor adds receivers and lets signals through.
func (s *supervisor) monitor() {
	t := time.NewTicker(stuckAfter)
	defer t.Stop()
	last := int64(-1)
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.done:
			return
		case <-t.C:
		}
		now := s.served.Load()
		if s.idle.Load() <= 0 && now == last && s.count.Load() <= maxReceivers && s.addReceiver() {
			go s.receive()
		}
		last = now
		s.interrupt()
	}
}

// addReceiver counts one more, unless the last one is gone.
func (s *supervisor) addReceiver() bool {
	for {
		n := s.count.Load()
		if n == 0 {
			return false
		}
		if s.count.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// A connect that takes longer than this gives way to a signal. Shorter ones are
// not interrupted, so that a storm of signals does not starve them.
const patience = 200 * time.Millisecond

// interrupt answers -ERESTARTSYS to threads that wait although a signal handler
// should run: WAIT_KILLABLE_RECV would hold it back. The kernel then does what
// SA_RESTART says. The connect goes on, as it does natively. A decision is not
// interrupted: after EINTR programs poll the socket, and one that has not begun
// to connect looks connected.
func (s *supervisor) interrupt() {
	const erestartsys = 512 // Must never be sent without a pending signal: it would reach the program.
	s.mu.Lock()
	ops := slices.Collect(maps.Keys(s.running))
	s.mu.Unlock()
	for _, o := range ops {
		o.mu.Lock()
		if !o.since.IsZero() && time.Since(o.since) > patience && !o.answered && o.fd >= 0 && signalPending(o.tid) {
			s.reply(o.id, erestartsys)
			o.answered = true
		}
		o.mu.Unlock()
	}
}

func (s *supervisor) reply(id uint64, errno unix.Errno) bool {
	return send(s.fd, &response{ID: id, Error: -int32(errno)}) == 0
}

// proceed lets the program's own system call run. Only for sockets that cannot
// reach a network.
func (s *supervisor) proceed(id uint64) {
	send(s.fd, &response{ID: id, Flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE})
}

// lock serializes the connects of a socket.
func (s *supervisor) lock(cookie uint64) (unlock func()) {
	s.mu.Lock()
	u := s.sockets[cookie]
	if u == nil {
		u = new(socketUse)
		s.sockets[cookie] = u
	}
	u.users++
	s.mu.Unlock()
	u.mu.Lock()
	return func() {
		u.mu.Unlock()
		s.mu.Lock()
		if u.users--; u.users == 0 {
			delete(s.sockets, cookie)
		}
		s.mu.Unlock()
	}
}

// begin and end enclose what an op does with its descriptor.
func (s *supervisor) begin(n *notif, fd int) *op {
	o := &op{tid: n.TID, id: n.ID, fd: fd}
	s.mu.Lock()
	s.running[o] = struct{}{}
	s.mu.Unlock()
	return o
}

// connecting says since when the op waits for a connect; zero: it does not.
func (o *op) connecting(since time.Time) {
	o.mu.Lock()
	o.since = since
	o.mu.Unlock()
}

// end answers the op and closes its descriptor. A result that nobody waits for
// is kept for the thread's next call, which may be the same one restarted.
func (s *supervisor) end(o *op, c call, errno unix.Errno) {
	s.mu.Lock()
	delete(s.running, o)
	s.mu.Unlock()
	o.mu.Lock()
	unix.Close(o.fd)
	o.fd = -1
	delivered := !o.answered && s.reply(o.id, errno)
	o.mu.Unlock()
	if !delivered {
		s.mu.Lock()
		if len(s.lost) >= 4096 { // Of threads that died.
			clear(s.lost)
		}
		s.lost[o.tid] = result{c, errno}
		s.mu.Unlock()
	}
}

// restarted returns the result of the interrupted call that c repeats.
func (s *supervisor) restarted(tid uint32, c call) (unix.Errno, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.lost[tid]
	delete(s.lost, tid)
	return r.errno, ok && r.call == c
}
