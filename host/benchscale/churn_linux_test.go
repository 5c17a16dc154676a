package benchscale_test

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/arenastore"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// BenchmarkChurn opens connections through the pipeline as fast as it can while the
// oldest of a hundred thousand end, with each store. With -benchtime 10m it tells
// whether memory is flat: the most that the process had in the second and in the last
// quarter of the time.
func BenchmarkChurn(b *testing.B) {
	for _, k := range []struct {
		name string
		open func() redirect.Store
	}{
		{"arenastore", func() redirect.Store { return arenastore.New(arenastore.Options{}) }},
		{"memstore", func() redirect.Store { return memstore.New(0) }},
	} {
		b.Run(k.name, func(b *testing.B) {
			p := newPipeline(b, 1000, knownMatch)
			p.store = k.open()
			churn(b, p)
		})
	}
}

func churn(b *testing.B, p *pipeline) {
	const live = 100_000
	d, ring, i := new(fwps.Decision), make([]redirect.Hop, live), 0
	open := func() {
		h := &ring[i%live]
		if h.Serial != 0 {
			if err := p.store.Release(h.Serial); err != nil {
				b.Fatal(err)
			}
			h.Serial = 0
		}
		p.engine.Classify(b.Context(), p.ins[i%len(p.ins)], d)
		if d.Redirected() {
			h.Serial, h.Target = p.store.NewSerial(), d.Connect.Remote
			h.Record = append(h.Record[:0], d.Connect.Record...)
			if err := p.store.Put(h); err != nil {
				b.Fatal(err)
			}
		}
		i++
	}
	for range live {
		open()
	}
	had := make([]int, 0, 1<<20)
	for b.Loop() {
		if open(); i%10_000 == 0 {
			had = append(had, rss(b))
		}
	}
	if n := len(had); n >= 4 {
		b.ReportMetric(float64(slices.Max(had[n/4:n/2]))/(1<<20), "second-MiB")
		b.ReportMetric(float64(slices.Max(had[n*3/4:]))/(1<<20), "last-MiB")
	}
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
