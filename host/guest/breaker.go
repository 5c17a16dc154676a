package guest

import (
	"fmt"
	"sync"
	"time"
)

// breakerFailures in breakerWindow are no accident: the callout is put in
// quarantine.
const (
	breakerFailures = 5
	breakerWindow   = 10 * time.Second
)

// A breaker remembers when the last failures were. The zero breaker never trips.
type breaker struct {
	mu   sync.Mutex
	last []time.Time // a ring
	next int
}

// fail notes a failure and reports whether it was one too many.
func (b *breaker) fail(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.last) == 0 {
		return false
	}
	b.last[b.next] = now
	b.next = (b.next + 1) % len(b.last)
	oldest := b.last[b.next]
	return !oldest.IsZero() && now.Sub(oldest) <= breakerWindow
}

func (b *breaker) reset() {
	b.mu.Lock()
	clear(b.last)
	b.mu.Unlock()
}

// A QuarantineError is the answer of a callout that failed too often. Its guest
// is not asked any more.
type QuarantineError struct {
	Module   string
	Failures int
	Last     error // the failure that was one too many
}

func (e *QuarantineError) Error() string {
	return fmt.Sprintf("callout %q is in quarantine after %d failures in %v, the last: %v", e.Module, e.Failures, breakerWindow, e.Last)
}

func (e *QuarantineError) Unwrap() error { return e.Last }

// EventKind says what happened to a callout.
type EventKind int

// What can happen to a callout as a whole.
const (
	EventReloaded    EventKind = iota // another version is live
	EventQuarantined                  // it failed too often
	EventRestored                     // the last good version is live again
)

func (k EventKind) String() string {
	return [...]string{"reloaded", "quarantined", "restored"}[k]
}

// An Event is a change of a callout as a whole.
type Event struct {
	Kind       EventKind
	Module     string
	Generation uint64 // the one that is live, or was when the quarantine began
	Err        error  // why
}
