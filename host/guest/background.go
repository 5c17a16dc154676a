package guest

import (
	"fmt"
	"time"
)

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// due asks for housekeeping. If the queue is full the next decision asks again.
func (g *generation) due(s *slot) {
	select {
	case g.housed <- s:
		s.inst.calls = 0
	default:
	}
}

// background does what decisions must not wait for.
func (g *generation) background() {
	tick := time.NewTicker(g.m.opts.idleAfter)
	defer tick.Stop()
	for {
		select {
		case <-g.stop:
			return
		case <-g.wake:
			g.fill()
		case s := <-g.housed:
			s.mu.Lock()
			bad := g.housekeep(s)
			s.mu.Unlock()
			g.afterwards(bad)
		case <-tick.C:
			g.afterwards(g.idle())
		}
	}
}

// afterwards goes on after housekeeping at which the guest may have failed.
func (g *generation) afterwards(bad bool) {
	if bad {
		g.fill()
		g.m.slow(g.stop)
	}
}

// fill makes spares. Only the background goroutine adds any, so there is room.
func (g *generation) fill() {
	for len(g.spares) < cap(g.spares) {
		i, err := g.m.start(g.src, g.number)
		if err != nil {
			g.m.log.Printf("callout %q: no spare instance: %v", g.m.name, err)
			return
		}
		g.spares <- i
	}
}

// idle does the housekeeping of slots that were asked something, and nothing
// since the last time. It reports whether the guest failed at it.
func (g *generation) idle() (bad bool) {
	for k := range g.slots {
		s := &g.slots[k]
		if !s.mu.TryLock() {
			continue
		}
		if i := s.inst; i != nil && i.calls > 0 {
			if i.calls == i.seen {
				bad = g.housekeep(s) || bad
				i.calls = 0
			}
			i.seen = i.calls
		}
		s.mu.Unlock()
	}
	return bad
}

// housekeep lets the guest collect garbage: a Go guest that is never given the
// time keeps a collection open and its memory grows. It reports whether the guest
// failed. The slot is locked.
func (g *generation) housekeep(s *slot) (bad bool) {
	if s.inst == nil || s.inst.idle == nil {
		return false
	}
	i := s.inst
	i.refill(g.m.opts.InitFuelSlices)
	const milliseconds = 10
	if _, err := i.idle.Call(&i.ctx, milliseconds); err != nil {
		return faulty(g.m.lost(s, fmt.Errorf("housekeeping: %w", i.cause(err))))
	}
	return false
}
