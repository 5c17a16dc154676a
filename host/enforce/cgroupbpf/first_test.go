//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// BenchmarkFirstConnection makes a network namespace with a program whose first socket
// connects at once, on a machine at rest and on one where programs that never wait have
// every processor. It counts those that were refused.
func BenchmarkFirstConnection(b *testing.B) {
	for _, spinning := range []int{0, 2, 8} { // to a processor
		b.Run(fmt.Sprintf("spinning=%d", spinning), func(b *testing.B) {
			s := namespaceSite(b)
			defer s.attach(b).Close()
			for range spinning * runtime.NumCPU() {
				spin(b)
			}
			refused := 0
			for b.Loop() {
				said := s.start(b, unix.CLONE_NEWNET, "up/", "usual-tcp/198.51.100.7:80").end()
				if !slices.Equal(said, []string{"up", "tcp from 198.51.100.7:80"}) {
					refused++
					b.Log(said)
				}
			}
			b.ReportMetric(float64(refused), "refused")
		})
	}
}

// spin runs a program that never waits, until the test ends.
func spin(b *testing.B) {
	cmd := exec.CommandContext(b.Context(), "sh", "-c", "while :; do :; done")
	require.NoError(b, cmd.Start())
	b.Cleanup(func() { _ = cmd.Wait() }) // The context kills it, before this.
}
