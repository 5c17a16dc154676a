package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func build(t testing.TB, pkg string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "program")
	b, err := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg).CombinedOutput()
	require.NoError(t, err, string(b))
	return out
}

func TestSmallest(t *testing.T) {
	out, err := exec.Command(build(t, ".")).Output()
	require.NoError(t, err)
	require.Equal(t, "192.0.2.1:25: block, because of filter 1 \"no mail\"\n", string(out))
}

// What the engine adds to a program: bytes on disk, and time from its start to
// its first decision, beside a program that prints a line.
func BenchmarkStart(b *testing.B) {
	programs := [2]string{build(b, "./empty"), build(b, ".")}
	var least [2]time.Duration
	for b.Loop() {
		for i, p := range programs {
			start := time.Now()
			require.NoError(b, exec.Command(p).Run())
			if took := time.Since(start); least[i] == 0 || took < least[i] {
				least[i] = took
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	for i, name := range []string{"empty", "embedder"} {
		info, err := os.Stat(programs[i])
		require.NoError(b, err)
		b.ReportMetric(float64(info.Size())/1e6, "MB/"+name)
		b.ReportMetric(float64(least[i].Microseconds())/1000, "ms/"+name)
	}
	b.ReportMetric(float64(least[1])/float64(least[0]), "x/start")
}
