//go:build amd64 || arm64

package seccomp

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A monitor watches parked sockets. Its event descriptor ends its sleep.
type monitor struct {
	epoll, event int
	file         *os.File // has epoll
	raw          syscall.RawConn
}

func newMonitor() (m monitor, err error) {
	if m.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return m, os.NewSyscallError("epoll_create1", err)
	}
	err = unix.SetNonblock(m.epoll, true) // Else Go's poller does not take it.
	m.file = os.NewFile(uintptr(m.epoll), "epoll")
	if err == nil {
		err = m.file.SetReadDeadline(time.Time{}) // It fails when the poller has not taken it.
	}
	if err == nil {
		m.raw, err = m.file.SyscallConn()
	}
	if err == nil {
		m.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	}
	if err != nil {
		m.file.Close()
		return m, fmt.Errorf("seccomp: an epoll set: %w", err)
	}
	if err = m.add(m.event, unix.EPOLLIN|unix.EPOLLET); err != nil {
		m.close()
		return m, os.NewSyscallError("epoll_ctl", err)
	}
	return m, nil
}

func (m monitor) close() { m.file.Close(); unix.Close(m.event) }

// wait fills events, with none when the timeout is over; a negative one is for ever.
// It waits in Go's poller: in a system call of its own it would hold a thread, and
// keep the runtime awake, which looks after threads that it misses.
func (m monitor) wait(events []unix.EpollEvent, timeout time.Duration) []unix.EpollEvent {
	var until time.Time
	if timeout >= 0 {
		until = time.Now().Add(timeout)
	}
	n := 0
	_ = m.file.SetReadDeadline(until)
	_ = m.raw.Read(func(fd uintptr) bool {
		n, _ = unix.EpollWait(int(fd), events, 0)
		return n > 0
	})
	return events[:max(n, 0)]
}

func (m monitor) add(fd int, events uint32) error {
	return unix.EpollCtl(m.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

// remove must come before the descriptor is closed: the program has the same
// open file, which would stay watched.
func (m monitor) remove(fd int) { _ = unix.EpollCtl(m.epoll, unix.EPOLL_CTL_DEL, fd, nil) }

var one = [8]byte{1}

func (m monitor) poke() {
	_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(m.event), uintptr(unsafe.Pointer(&one)), uintptr(len(one)))
}

// watch ticks as long as there is something to look after.
func (s *supervisor) watch() {
	defer close(s.watched)
	defer s.close()
	events := make([]unix.EpollEvent, 64)
	ticked := time.Now()
	for last := int64(-1); ; {
		timeout := tickTime
		if s.quiet(last) {
			s.asleep.Store(true)
			if s.quiet(last) { // A worker that saw us awake is seen here.
				timeout = s.rest()
			}
		}
		ready := s.monitor.wait(events, timeout)
		s.asleep.Store(false)
		s.settled(ready)
		if now := time.Now(); now.Sub(ticked) >= tickTime {
			ticked = now
			if last = s.look(last, now); last < 0 {
				return
			}
		}
	}
}

// quiet reports whether nothing happened since last and nothing goes on.
func (s *supervisor) quiet(last int64) bool {
	return s.busy.Load() == 0 && s.served.Load() == last && !s.stopped.Load()
}

// rest is how long the monitor may sleep when all is quiet: until one of those
// that are parked has to be looked after.
func (s *supervisor) rest() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.parked) == 0 {
		return -time.Millisecond // for ever
	}
	t := askEvery
	for _, w := range s.parked {
		if !w.expires.IsZero() {
			t = min(t, max(time.Until(w.expires), tickTime))
		}
	}
	return t
}

// settled resumes connects that have an outcome.
func (s *supervisor) settled(events []unix.EpollEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ev := range events {
		if w := s.parked[int64(ev.Fd)]; w != nil {
			w.resume(0)
		}
	}
}

// look parks connects that wait, adds a receiver when decisions are slow, and
// lets signals through. It returns how many calls were served, -1 when the
// supervisor has stopped and no worker is left.
func (s *supervisor) look(last int64, now time.Time) int64 {
	tick := s.tick.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	stopped := s.stopped.Load()
	if stopped && !s.working() {
		return -1
	}
	for _, w := range s.parked {
		if e := w.check(now); e != 0 {
			w.resume(e)
		}
	}
	for w := range s.threads {
		switch since := w.since.Load(); {
		case since == heldUp:
		case since != 0 && tick-since>>1 >= holdTicks:
			s.hold(w, since)
		case stopped, since&endable != 0 && tick-since>>1 >= 2:
			kick(w.thread)
		}
	}
	served := s.served.Load()
	n := s.receiving.Load()
	if slow := served-last < int64(n)*keepsUp; slow && n < maxReceivers && s.busy.Load() >= n && s.l.pending() && !stopped {
		s.receive()
	}
	return served
}

// keepsUp is how many calls a receiver answers in a tick if it is not slow.
// Those that are fast get in each other's way.
const keepsUp = 25

func (w *worker) resume(e unix.Errno) {
	select {
	case w.wake <- e:
	default: // It has been told.
	}
}

// kickSignal ends the system call that a thread waits in. SIGURG, with which Go
// does that, would restart a connect.
const kickSignal = unix.Signal(63)

var kickMu sync.Mutex

// kick interrupts a thread of this process, whatever it does.
func kick(tid int) {
	kickMu.Lock()
	defer kickMu.Unlock()
	armKick()
	_ = unix.Tgkill(unix.Getpid(), tid, kickSignal)
}

// armKick gives kickSignal Go's handler without SA_RESTART, which Go always
// sets. It does so anew when somebody has reset all signals.
func armKick() {
	var act struct { // struct sigaction, as the kernel has it
		handler, flags, restorer uintptr
		mask                     uint64
	}
	sigaction := func(set, get unsafe.Pointer) {
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(kickSignal), uintptr(set), uintptr(get), unsafe.Sizeof(act.mask), 0, 0)
	}
	const saRestart = 0x10000000
	if sigaction(nil, unsafe.Pointer(&act)); act.handler > 1 && act.flags&saRestart == 0 {
		return // 0 and 1 are SIG_DFL and SIG_IGN.
	}
	signal.Notify(kicks, kickSignal)
	sigaction(nil, unsafe.Pointer(&act))
	act.flags &^= saRestart
	sigaction(unsafe.Pointer(&act), nil)
}

var kicks = make(chan os.Signal, 1) // Nobody reads it: what matters is the interruption.
