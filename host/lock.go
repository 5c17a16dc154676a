package host

import (
	"sync"
	"time"

	"github.com/calloutd/calloutd/host/fwp"
)

// DefaultTxnWaitTimeout is how long a transaction waits for the one under way
// unless its session says otherwise (BFE-SES-01).
const DefaultTxnWaitTimeout = 15 * time.Second

// txnLimit is how long a transaction may hold the lock (BFE-TXN-03).
const txnLimit = time.Hour

// A txnLock is the engine's transaction lock. Its holder can lose it: one that is
// between two calls and over its limit gives way to whoever waits.
type txnLock struct {
	now   func() time.Time
	after func(time.Duration) <-chan time.Time

	mu      sync.Mutex
	holder  *txn
	busy    bool          // the holder is in a call
	changed chan struct{} // closed when the holder or busy does
	orphans []*Session    // closed, but their dynamic objects are still there
}

func (l *txnLock) signal() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// take makes t the holder if it can be; the caller holds l.mu. If not, the
// holder loses the lock after left, or for zero when it is ready to.
func (l *txnLock) take(t *txn, now time.Time) (ok bool, left time.Duration) {
	if h := l.holder; h != nil {
		if h.limit > 0 && !l.busy {
			left = max(h.limit-now.Sub(h.since), 0)
		}
		if h.limit == 0 || l.busy || left > 0 {
			return false, left
		}
	}
	l.holder, l.busy, t.since = t, true, now
	return true, 0
}

// acquire waits for the lock, for wait at most, and leaves t in a call. done ends
// the waiting.
func (l *txnLock) acquire(t *txn, wait time.Duration, done <-chan struct{}) error {
	deadline := l.now().Add(wait)
	for {
		l.mu.Lock()
		now := l.now()
		ok, left := l.take(t, now)
		changed := l.changed
		l.mu.Unlock()
		if ok {
			return nil
		}
		rest := deadline.Sub(now)
		if rest <= 0 {
			return fwp.ErrTimeout
		}
		if left > 0 {
			rest = min(rest, left)
		}
		select {
		case <-changed:
		case <-l.after(rest):
		case <-done:
			return fwp.ErrSessionAborted
		}
	}
}

// enter begins a call of the holder; it fails if the lock was lost.
func (l *txnLock) enter(t *txn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holder == t && t.limit > 0 && l.now().Sub(t.since) >= t.limit {
		l.holder = nil
		l.signal()
	}
	if l.holder != t {
		return fwp.ErrTxnAborted
	}
	l.busy = true
	return nil
}

// leave ends a call of the holder.
func (l *txnLock) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = false
	l.signal()
}

// pass gives the lock back if t still has it: to next if there are orphans, and
// says so.
func (l *txnLock) pass(t, next *txn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holder != t {
		return false
	}
	if len(l.orphans) > 0 {
		l.holder, l.busy, next.since = next, true, l.now()
		return true
	}
	l.holder, l.busy = nil, false
	l.signal()
	return false
}

// orphan notes a session that closed and left its dynamic objects.
func (l *txnLock) orphan(s *Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.orphans = append(l.orphans, s)
}

// takeForOrphans makes t the holder if there are orphans and nobody has the lock.
func (l *txnLock) takeForOrphans(t *txn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.orphans) == 0 {
		return false
	}
	ok, _ := l.take(t, l.now())
	return ok
}

// adopt hands the orphans to the holder.
func (l *txnLock) adopt() []*Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	orphans := l.orphans
	l.orphans = nil
	return orphans
}
