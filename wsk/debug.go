package wsk

import (
	"math/rand/v2"
	"sync"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// Debug makes a provider hard on its clients. The zero value is off.
type Debug struct {
	// AlwaysPend makes every call with an IRP return STATUS_PENDING, to find
	// clients that rely on inline completion (AMB-04).
	AlwaysPend bool
	// RandomOrder is AlwaysPend with completions in random order.
	RandomOrder bool
	// Verifier, if not nil, watches what clients do with IRPs, buffers and sockets.
	Verifier *Verifier
	// Fault, if not nil, is asked before each ioctl; a status that is not
	// STATUS_SUCCESS is then the answer (AMB-07).
	Fault func(code uint32) ntstatus.Status
}

// late completes calls after they returned.
type late struct {
	shuffles bool

	mu      sync.Mutex
	waiting []completion
	running bool
}

type completion struct {
	c  call
	st ntstatus.Status
	n  int
}

func newLate(d Debug) *late {
	if !d.AlwaysPend && !d.RandomOrder {
		return nil
	}
	return &late{shuffles: d.RandomOrder}
}

func (l *late) complete(c call, st ntstatus.Status, n int) {
	if !l.shuffles {
		go c.end(st, n)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, completion{c, st, n})
	if !l.running {
		l.running = true
		go l.run()
	}
}

// run completes what waits, any first, each on its own goroutine: one
// completion routine must not hold up another.
func (l *late) run() {
	for {
		l.mu.Lock()
		if len(l.waiting) == 0 {
			l.running = false
			l.mu.Unlock()
			return
		}
		i, last := rand.IntN(len(l.waiting)), len(l.waiting)-1
		x := l.waiting[i]
		l.waiting[i] = l.waiting[last]
		l.waiting = l.waiting[:last]
		l.mu.Unlock()
		go x.c.end(x.st, x.n)
	}
}
