package enforcetest

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// WithoutDescriptors lets this process have no more descriptors than it has, until the
// function that it returns is called. What it starts meanwhile has the same limit.
func WithoutDescriptors() (restore func()) {
	var old syscall.Rlimit
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	must(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old))
	must(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: old.Max})) // Those that are open stay.
	return func() { must(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old)) }
}

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
