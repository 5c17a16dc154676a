//go:build amd64 || arm64

package seccomp

import (
	"sync"
	"time"

	"github.com/calloutd/calloutd/host/ale"
	"golang.org/x/sys/unix"
)

// underway has the connections that go on after connect() has returned. When one
// is established FLOW_ESTABLISHED is asked, by a goroutine of its own.
//
// A socket stays in an epoll set after the descriptor that put it there is
// closed, and leaves it when the program closes it. So nothing of ours keeps a
// connection going that the program has given up; what it has closed before its
// event was seen is not told. What a callout aborts is reset by the descriptor that the
// program has, if it has it still.
type underway struct {
	mu       sync.Mutex
	watched  *monitor      // nil: there was none yet
	ended    chan struct{} // closed when nothing is watched any more
	attempts map[uint64]attempt
	newest   map[uint64]uint64 // of a socket, by its cookie
	last     uint64
	stopped  bool
}

// An attempt is one connect of a socket, which may make another one: an event can be
// late.
type attempt struct {
	flow   *ale.Flow
	cookie uint64
	since  time.Time
}

const (
	// Linux gives up after 127 s, with the default of tcp_syn_retries.
	attemptLife = 3 * time.Minute
	maxAttempts = 1 << 14 // more are not told
)

// follow waits until the connection of a socket of this process, which the caller
// closes, is established. It is the flow's owner.
func (u *underway) follow(fd int, cookie uint64, f *ale.Flow) {
	u.mu.Lock()
	former := u.take(u.newest[cookie]) // The program has disconnected it since.
	err := u.watch(fd)
	if err == nil {
		u.attempts[u.last], u.newest[cookie] = attempt{f, cookie, time.Now()}, u.last
	}
	u.mu.Unlock()
	if err != nil {
		f.Detach()
		return
	}
	if former != nil {
		leave(former)
	}
}

// leave is the end of a flow: who aborts it from now on meets another connection.
func leave(f *ale.Flow) {
	f.OnAbort(func() {})
	f.Detach()
}

// watch has the events of a socket reported as those of a new attempt. u.mu is held.
func (u *underway) watch(fd int) error {
	if u.stopped || len(u.attempts) >= maxAttempts {
		return unix.EAGAIN
	}
	if u.watched == nil {
		m, err := newMonitor()
		if err != nil {
			return err
		}
		u.watched, u.ended, u.attempts, u.newest = &m, make(chan struct{}), map[uint64]attempt{}, map[uint64]uint64{}
		go u.run()
	}
	if len(u.attempts) == 0 {
		u.watched.poke() // It does not look after their age.
	}
	u.last++
	// The complement is never the number of the monitor's own descriptor.
	ev := unix.EpollEvent{Events: unix.EPOLLOUT | unix.EPOLLONESHOT, Fd: int32(^u.last), Pad: int32(^u.last >> 32)}
	err := unix.EpollCtl(u.watched.epoll, unix.EPOLL_CTL_ADD, fd, &ev)
	if err == unix.EEXIST { // An earlier attempt of it, by the same number.
		err = unix.EpollCtl(u.watched.epoll, unix.EPOLL_CTL_MOD, fd, &ev)
	}
	return err
}

// take takes an attempt out, nil if it is not there. u.mu is held.
func (u *underway) take(n uint64) *ale.Flow {
	a := u.attempts[n]
	delete(u.attempts, n)
	if u.newest[a.cookie] == n {
		delete(u.newest, a.cookie)
	}
	return a.flow
}

// run takes what is settled, until stop.
func (u *underway) run() {
	defer close(u.ended)
	defer u.watched.close()
	events := make([]unix.EpollEvent, 64)
	for due := time.Now().Add(attemptLife); ; {
		for _, ev := range u.watched.wait(events, u.patience()) {
			u.settled(^(uint64(uint32(ev.Pad))<<32 | uint64(uint32(ev.Fd))), ev.Events)
		}
		u.mu.Lock()
		stopped := u.stopped
		u.mu.Unlock()
		if now := time.Now(); stopped || now.After(due) {
			due = now.Add(attemptLife)
			u.forget(now)
		}
		if stopped {
			return
		}
	}
}

// patience is how long nothing has to be looked after, negative for ever.
func (u *underway) patience() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.attempts) == 0 {
		return -1
	}
	return attemptLife
}

// settled ends an attempt. A socket that has failed, or was reset meanwhile, is
// hung up.
func (u *underway) settled(n uint64, events uint32) {
	u.mu.Lock()
	f := u.take(n)
	u.mu.Unlock()
	if f == nil {
		return
	}
	if events&(unix.EPOLLHUP|unix.EPOLLERR) == 0 {
		f.Established()
	}
	leave(f)
}

// forget ends attempts of which nothing will be heard: their sockets are closed, or
// all is over.
func (u *underway) forget(now time.Time) {
	var old []*ale.Flow
	u.mu.Lock()
	for n, a := range u.attempts {
		if u.stopped || now.Sub(a.since) >= attemptLife {
			old = append(old, u.take(n))
		}
	}
	u.mu.Unlock()
	for _, f := range old {
		leave(f)
	}
}

// stop gives up what is under way. What it returns is closed when that is over.
func (u *underway) stop() <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stopped = true
	if u.watched == nil {
		u.ended = make(chan struct{})
		close(u.ended)
	} else {
		u.watched.poke()
	}
	return u.ended
}
