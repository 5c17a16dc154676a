package guest

import (
	"sync"
	"time"
)

// A limiter passes at most logBurst lines each logEvery on: what guests print
// or do wrong must not fill a disk.
type limiter struct {
	logf func(string, ...any)
	mu   sync.Mutex
	from time.Time
	n    int
}

const (
	logBurst = 20
	logEvery = 10 * time.Second
)

func (l *limiter) printf(format string, args ...any) {
	if l.pass() {
		l.logf(format, args...)
	}
}

func (l *limiter) pass() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.from) >= logEvery {
		l.from, l.n = now, 0
	}
	l.n++
	return l.n <= logBurst
}
