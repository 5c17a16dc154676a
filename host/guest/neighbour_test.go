package guest_test

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/internal/sample"
)

// misbehave has another callout asked for what its guest does wrong, again and
// again, until stop is called. It is never put in quarantine.
func misbehave(b *testing.B, port uint16, how func(guest.ModuleOptions) guest.ModuleOptions) (stop func()) {
	m := load(b, "bad", how(guest.ModuleOptions{Slots: 1, Spares: 2, MaxFailures: -1}))
	var over atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for v := new(fwps.Verdict); !over.Load(); {
			v.Reset()
			if m.Classify(context.Background(), call(port), v) == nil {
				b.Error("it was to fail")
				return
			}
		}
	})
	return func() { over.Store(true); wg.Wait() }
}

// busy is what a guest is compared with: work in Go, which can be preempted.
func busy() (stop func()) {
	var over atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !over.Load() {
		}
	})
	return func() { over.Store(true); wg.Wait() }
}

// misdeeds of bad.wat, by port.
var misdeeds = []struct {
	name string
	port uint16
}{{"an endless loop", 10}, {"a recursion", 11}, {"a trap", 12}, {"memory that grows", 13}, {"bulk fills", 14}}

// BenchmarkNeighbour is what a callout feels of another one that misbehaves.
func BenchmarkNeighbour(b *testing.B) {
	m := loadFile(b, splits[0].file, guest.ModuleOptions{Config: sample.Config()})
	b.Run("alone", func(b *testing.B) { latencies(b, m) })
	b.Run("beside a busy goroutine", func(b *testing.B) {
		defer busy()()
		latencies(b, m)
	})
	for _, d := range misdeeds {
		b.Run("beside "+d.name, func(b *testing.B) {
			defer misbehave(b, d.port, paced)()
			latencies(b, m)
		})
	}
}

// paced is how a host has it.
func paced(o guest.ModuleOptions) guest.ModuleOptions { return o }

func latencies(b *testing.B, m *guest.Module) {
	calls, v := sample.Calls(), new(fwps.Verdict)
	took := make([]time.Duration, 0, 1<<20)
	for n := 0; b.Loop(); n++ {
		v.Reset()
		began := time.Now()
		if err := m.Classify(context.Background(), calls[n%len(calls)], v); err != nil {
			b.Fatal(err)
		}
		if len(took) < cap(took) {
			took = append(took, time.Since(began))
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
}

// BenchmarkCollection is a garbage collection while a guest misbehaves, which has
// to let it in.
func BenchmarkCollection(b *testing.B) {
	b.Run("alone", collect)
	b.Run("beside a busy goroutine", func(b *testing.B) {
		defer busy()()
		collect(b)
	})
	for _, d := range misdeeds {
		b.Run("beside "+d.name, func(b *testing.B) {
			defer misbehave(b, d.port, guest.Unpaced)()
			collect(b)
		})
	}
}

func collect(b *testing.B) {
	var worst time.Duration
	for b.Loop() {
		began := time.Now()
		runtime.GC()
		worst = max(worst, time.Since(began))
	}
	b.ReportMetric(float64(worst.Microseconds()), "worst-µs")
}
