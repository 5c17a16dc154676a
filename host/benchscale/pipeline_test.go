package benchscale_test

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/internal/cputime"
	"github.com/calloutd/calloutd/host/internal/load"
	"github.com/calloutd/calloutd/host/internal/race"
	"github.com/calloutd/calloutd/host/internal/sample"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/arenastore"
)

const redirectLayer = fwpm.LayerALEConnectRedirectV4

// A pipeline is what a connection goes through: the filters, the guarded guest of
// one of them, and the store.
type pipeline struct {
	engine *host.Engine
	store  redirect.Store
	ins    []*fwps.Incoming
}

// promises says that what a callout answers is cacheable.
type promises struct{ fwps.Callout }

func (p promises) Classify(ctx context.Context, c *fwps.Call, v *fwps.Verdict) error {
	err := p.Callout.Classify(ctx, c, v)
	v.Cacheable = true
	return err
}

// What an engine knows of a connection like one before: nothing, since it has no cache;
// which filters match; or the decision, since it is told that the guest's answers depend
// on the request alone.
const (
	knownNothing  = "nothing"
	knownMatch    = "match"
	knownDecision = "decision"
)

var knowns = []string{knownNothing, knownMatch, knownDecision}

// newPipeline has n filters like those of a large site, in three sublayers, and
// above them one that asks the example of the SDK for C.
func newPipeline(tb testing.TB, n int, known string) *pipeline {
	rt, err := guest.NewRuntime(tb.Context(), guest.Options{})
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, rt.Close(context.Background())) })
	wasm, err := os.ReadFile("../../sdk/c/example/split.wasm")
	require.NoError(tb, err)
	m, err := rt.Load(tb.Context(), "split", wasm, guest.ModuleOptions{Config: sample.Config()})
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, m.Close(context.Background())) })
	var o host.Options
	var split fwps.Callout = m
	switch known {
	case knownNothing:
		o.CacheSize = -1
	case knownDecision:
		split = promises{m}
	}
	e := host.New(o)
	_, _, err = e.RegisterCallout("split", split)
	require.NoError(tb, err)
	require.NoError(tb, e.Update(func(p *fwpm.Policy) error {
		*p = *load.New(1, redirectLayer, n).Policy(n)
		p.Callouts = []fwpm.Callout{{ID: "split"}}
		p.Sublayers = append(p.Sublayers, fwpm.Sublayer{ID: "first", Weight: 9})
		p.Filters = append(p.Filters, fwpm.Filter{ID: fwpm.FilterID(n + 1), Name: "ask", Layer: redirectLayer, Sublayer: "first",
			Action: fwp.ActionCalloutTerminating, Callout: "split"})
		return nil
	}))
	pl := &pipeline{engine: e, store: arenastore.New(arenastore.Options{})}
	for i, c := range sample.Calls() {
		in := *c.In
		in.EndpointID = uint64(64 + i) // The first is a probe of the cache.
		in.Local = netip.MustParseAddrPort("192.0.2.1:0")
		pl.ins = append(pl.ins, &in)
	}
	return pl
}

// decide decides a connection and, where it is redirected, keeps the record and
// gives it up, as the end of the connection does.
func (p *pipeline) decide(ctx context.Context, i int, d *fwps.Decision, h *redirect.Hop) error {
	p.engine.Classify(ctx, p.ins[i%len(p.ins)], d)
	if !d.Redirected() {
		return nil
	}
	h.Serial, h.Target, h.Record = p.store.NewSerial(), d.Connect.Remote, d.Connect.Record
	if err := p.store.Put(h); err != nil {
		return err
	}
	return p.store.Release(h.Serial)
}

func TestPipelineAllocatesNothing(t *testing.T) {
	for _, known := range knowns {
		allocatesNothing(t, newPipeline(t, 1000, known), known == knownDecision)
	}
}

func allocatesNothing(t *testing.T, p *pipeline, cached bool) {
	d, h := new(fwps.Decision), new(redirect.Hop)
	for i := range 4 * len(p.ins) { // What is known is kept the third time.
		require.NoError(t, p.decide(t.Context(), i, d, h))
	}
	kept := 0
	for i := range p.ins {
		require.NoError(t, p.decide(t.Context(), i, d, h))
		require.Equal(t, cached, d.Cached)
		if d.Redirected() {
			kept++
		}
	}
	require.Equal(t, sample.Redirected, kept)
	if race.Enabled {
		return // Its sync.Pool forgets.
	}
	require.Zero(t, testing.AllocsPerRun(200, func() { // It rounds down: all in one run.
		for i := range p.ins {
			if err := p.decide(t.Context(), i, d, h); err != nil {
				t.Error(err)
			}
		}
	}))
}

// BenchmarkPipeline is one connection by the number of filters and by what is known of
// it, in the thread's own time; the closure is the callout's decision in Go, with nothing
// around it.
func BenchmarkPipeline(b *testing.B) {
	best := func(b *testing.B, f func(i int)) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		b.ReportAllocs()
		const round = 1000
		b.ReportMetric(float64(cputime.Best(max(b.N/round, 1), round, f)), "ns/op")
	}
	b.Run("closure", func(b *testing.B) {
		calls, c, v := sample.Calls(), sample.Native(), new(fwps.Verdict)
		best(b, func(i int) {
			v.Reset()
			if err := c(b.Context(), calls[i%len(calls)], v); err != nil {
				b.Error(err)
			}
		})
	})
	for _, known := range knowns {
		for _, n := range pipelineSizes {
			b.Run(fmt.Sprintf("filters=%d/known=%s", n, known), func(b *testing.B) {
				p, d, h := newPipeline(b, n, known), new(fwps.Decision), new(redirect.Hop)
				b.ResetTimer()
				best(b, func(i int) {
					if err := p.decide(b.Context(), i, d, h); err != nil {
						b.Error(err)
					}
				})
			})
		}
	}
}

var pipelineSizes = []int{10, 1_000, 100_000}

// BenchmarkPipelineParallel tells with -cpu 1,2 what a core more is worth. The closure
// shares nothing: it is what this machine can give.
func BenchmarkPipelineParallel(b *testing.B) {
	b.Run("closure", func(b *testing.B) {
		calls, c := sample.Calls(), sample.Native()
		inStep(b, func() func(i int) error {
			v := new(fwps.Verdict)
			return func(i int) error {
				v.Reset()
				return c(b.Context(), calls[i%len(calls)], v)
			}
		})
	})
	for _, known := range knowns {
		b.Run("known="+known, func(b *testing.B) {
			p := newPipeline(b, 100_000, known)
			inStep(b, func() func(i int) error {
				d, h := new(fwps.Decision), new(redirect.Hop)
				return func(i int) error { return p.decide(b.Context(), i, d, h) }
			})
		})
	}
}

// inStep reports what a call costs on as many threads as there are cores, each with a
// function of its own: the best of many rounds that all begin and end together, from
// the first that begins to the last that ends. So short rounds find both cores free
// now and then, however much other work the machine has.
func inStep(b *testing.B, worker func() func(i int) error) {
	const round = 1000
	n := runtime.GOMAXPROCS(0)
	rounds := max(b.N/round, 1)
	type span struct{ from, to time.Time }
	spans := make([][]span, n)
	var arrived atomic.Int64
	var wg sync.WaitGroup
	for w := range n {
		spans[w] = make([]span, rounds)
		wg.Go(func() {
			f := worker()
			for r := range rounds {
				for arrived.Add(1); arrived.Load() < int64(n*(r+1)); {
				}
				spans[w][r].from = time.Now()
				for i := range round {
					if err := f(i); err != nil {
						b.Error(err)
					}
				}
				spans[w][r].to = time.Now()
			}
		})
	}
	wg.Wait()
	best := time.Duration(math.MaxInt64)
	for r := range rounds {
		all := spans[0][r]
		for _, s := range spans {
			if s[r].from.Before(all.from) {
				all.from = s[r].from
			}
			if s[r].to.After(all.to) {
				all.to = s[r].to
			}
		}
		best = min(best, all.to.Sub(all.from))
	}
	b.ReportMetric(float64(best)/float64(round*n), "ns/op")
}
