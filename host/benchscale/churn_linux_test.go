package benchscale_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
)

// BenchmarkChurn opens connections through the pipeline as fast as it can while the
// oldest of a hundred thousand end. With -benchtime 10m it tells whether memory is
// flat: the most that the process had in the second and in the last quarter of the
// time.
func BenchmarkChurn(b *testing.B) {
	const live = 100_000
	p, d, ring := newPipeline(b, 1000, false), new(fwps.Decision), make([]redirect.Hop, live)
	var quarters [4]int
	open := func(i int) {
		h := &ring[i%live]
		if h.Serial != 0 {
			require.NoError(b, p.store.Release(h.Serial))
			h.Serial = 0
		}
		p.engine.Classify(b.Context(), p.ins[i%len(p.ins)], d)
		if d.Redirected() {
			h.Serial, h.Target = p.store.NewSerial(), d.Connect.Remote
			h.Record = append(h.Record[:0], d.Connect.Record...)
			require.NoError(b, p.store.Put(h))
		}
	}
	for i := range live {
		open(i)
	}
	b.ResetTimer()
	for i := range b.N {
		open(live + i)
		if i%10_000 == 0 {
			quarter := &quarters[i*4/b.N]
			*quarter = max(*quarter, rss(b))
		}
	}
	b.ReportMetric(float64(quarters[1])/(1<<20), "second-MiB")
	b.ReportMetric(float64(quarters[3])/(1<<20), "last-MiB")
}

// rss is the memory of the process, in bytes.
func rss(b *testing.B) int {
	f, err := os.Open("/proc/self/statm")
	require.NoError(b, err)
	defer f.Close()
	var all, resident int
	_, err = fmt.Fscan(f, &all, &resident)
	require.NoError(b, err)
	return resident * os.Getpagesize()
}
