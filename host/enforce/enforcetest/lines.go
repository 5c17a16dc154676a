package enforcetest

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/loglimit"
)

// Lines counts what is logged, and what was left out and told.
type Lines struct {
	mu              sync.Mutex
	began           time.Time
	logged, leftOut uint64
}

func (l *Lines) Logf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.began.IsZero() {
		l.began = time.Now()
	}
	if !strings.HasPrefix(format, "%s (") { // of loglimit.Log.Close
		l.logged++
	}
	if strings.HasSuffix(format, "were not logged)") {
		l.leftOut += args[len(args)-1].(uint64)
	}
}

// Bounded says that of so many things that happened, of some kinds, each was logged or
// counted, and not many were logged.
func (l *Lines) Bounded(t testing.TB, kinds, happened uint64) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	require.Equal(t, happened, l.logged+l.leftOut)
	require.LessOrEqual(t, l.logged, kinds*MostLines(l.began))
}

// MostLines is how many lines of a kind may have been logged since a time, which is not before
// the first of them.
func MostLines(since time.Time) uint64 {
	return loglimit.Burst + uint64(time.Since(since)/loglimit.Every) + 1
}
