package wsknet

import (
	"sync"
)

// A tally counts what is under way. Other than that of a WaitGroup it may begin to
// grow while somebody waits.
type tally struct {
	mu   sync.Mutex
	n    int
	zero sync.Cond // on mu
}

func newTally() *tally {
	t := new(tally)
	t.zero.L = &t.mu
	return t
}

func (t *tally) add(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n += n; t.n == 0 {
		t.zero.Broadcast()
	}
}

// wait waits until nothing is under way.
func (t *tally) wait() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.n > 0 {
		t.zero.Wait()
	}
}
