package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/policytest"
	"github.com/calloutd/calloutd/host/policytrace"
)

// BenchmarkFlight is the whole command over a flight file of many connections, on a
// terminal, with its bar: an operation is a run. That memory does not grow with the
// file shows beside a tenth of it.
func BenchmarkFlight(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		file := filepath.Join(b.TempDir(), "a.flight")
		recordMany(b, file, n)
		b.Run(fmt.Sprintf("replay/%d", n), func(b *testing.B) {
			benchFlight(b, n, fmt.Sprintf("0 of %s recorded decisions differ\n", count(n)), "replay", file, "-p", quickstart)
		})
		b.Run(fmt.Sprintf("diff/%d", n), func(b *testing.B) {
			benchFlight(b, n, fmt.Sprintf("of %s connections change\n", count(n)), "diff", quickstart, forward, "--over", file)
		})
	}
}

// recordMany records as run --record does: connections at the boundaries of two
// policies, decided by one of them.
func recordMany(b *testing.B, file string, n int) {
	b.Helper()
	t := newTracer(io.Discard, false, false)
	t.tape = &tape{file: file}
	p, err := describe(b.Context(), quickstart, t)
	require.NoError(b, err)
	defer p.Close()
	other, err := describe(b.Context(), forward, newTracer(io.Discard, false, false))
	require.NoError(b, err)
	defer other.Close()
	done, err := t.tape.begin(p, t)
	require.NoError(b, err)
	defer done()
	w := policytrace.World(p).Quiet()
	space := policytest.Boundaries(w, policytrace.World(other))
	w.Classifier = t.tape.wrap(t)(p)
	var r *policytest.Recorder
	for i := range n {
		if i%policytest.Renewed == 0 {
			r = w.Record()
		}
		_, err := w.Decide(b.Context(), r, space.At(i%space.Size()))
		require.NoError(b, err)
	}
}

// benchFlight runs the command and says what a connection takes and how much memory
// it had at most.
func benchFlight(b *testing.B, n int, ends string, args ...string) {
	var most int64
	for b.Loop() {
		terminal, theirs, err := pty.Open()
		require.NoError(b, err)
		go func() { _, _ = io.Copy(io.Discard, terminal) }() // It ends with an error when the other end is closed.
		cmd := exec.CommandContext(b.Context(), "calloutd", args...)
		cmd.Env, cmd.Stderr = append(os.Environ(), "TERM=xterm"), theirs
		out, err := cmd.Output()
		require.NoError(b, err, "%s", out)
		require.True(b, strings.HasSuffix(string(out), ends), "%s", out)
		require.NoError(b, theirs.Close())
		require.NoError(b, terminal.Close())
		most = max(most, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/connection")
	b.ReportMetric(float64(most)/1024, "peak-MiB")
}
