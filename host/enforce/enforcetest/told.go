package enforcetest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Told keeps what is logged until a test has seen it.
type Told struct {
	mu    sync.Mutex
	lines []string
}

func (l *Told) Logf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

// Has waits up to a minute for a line with a part, and forgets it and those before it.
func (l *Told) Has(t testing.TB, part string) {
	t.Helper()
	require.Eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		i := slices.IndexFunc(l.lines, func(line string) bool { return strings.Contains(line, part) })
		l.lines = l.lines[i+1:]
		return i >= 0
	}, time.Minute, time.Millisecond, part)
}

// Nothing says that there is no other line.
func (l *Told) Nothing(t testing.TB) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	require.Empty(t, l.lines)
}
