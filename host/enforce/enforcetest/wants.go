package enforcetest

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Wants are what a backend told of a lack of descriptors for what it accepts.
type Wants struct {
	mu   sync.Mutex
	told []time.Time
}

// Logf is for the backend's options.
func (w *Wants) Logf(format string, args ...any) {
	if strings.Contains(fmt.Sprintf(format, args...), "accept4: too many open files") {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.told = append(w.told, time.Now())
	}
}

// Patient requires that the backend tells of it again and again, and waits longer each
// time: it does not take the processor until there are descriptors.
func (w *Wants) Patient(t testing.TB) {
	t.Helper()
	const times = 8
	const least = 127 * time.Millisecond // 1 + 2 + 4 + ... + 64
	var told []time.Time
	w.mu.Lock()
	w.told = nil
	w.mu.Unlock()
	require.Eventually(t, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		told = w.told
		return len(told) >= times
	}, time.Minute, time.Millisecond, "nobody is told that descriptors lack")
	require.GreaterOrEqual(t, told[times-1].Sub(told[0]), least)
}
