package guest

import (
	"sync"
	"time"
)

const (
	// After paceBurst failures at once further ones are paceEvery apart, and nobody
	// waits longer than paceMost.
	paceBurst = breakerFailures
	paceEvery = 50 * time.Millisecond
	paceMost  = 250 * time.Millisecond
)

// A pace spreads the failures of a callout that is never put in quarantine. What a
// failure leaves is garbage, and the collector takes the time of everybody. The
// zero pace is ready.
type pace struct {
	mu   sync.Mutex
	next time.Time // when a failure is due that nobody waits for, paceBurst later
}

// wait notes a failure and returns how long whoever met it has to wait.
func (p *pace) wait(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next.Before(now) {
		p.next = now
	}
	const most = paceBurst*paceEvery + paceMost
	ahead := min(p.next.Sub(now)+paceEvery, most)
	p.next = now.Add(ahead)
	return max(0, ahead-paceBurst*paceEvery)
}

// slow has the one who met a failure wait, who holds nothing that others need, but
// not longer than until gone.
func (m *Module) slow(gone <-chan struct{}) {
	long := m.pace.wait(time.Now())
	if long == 0 || m.opts.unpaced {
		return
	}
	t := time.NewTimer(long)
	defer t.Stop()
	select {
	case <-t.C:
	case <-gone:
	case <-m.stop:
	}
}
