package enforcetest

import (
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/loglimit"
)

// Lines counts what is logged, and what was left out and told.
type Lines struct {
	mu              sync.Mutex
	logged, leftOut uint64
}

func (l *Lines) Logf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
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
	require.LessOrEqual(t, l.logged, kinds*2*loglimit.Burst)
}
