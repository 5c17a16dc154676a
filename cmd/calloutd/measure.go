package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/guest/meter"
	"github.com/calloutd/calloutd/host/policyrun"
)

// A benchResult is what bench prints.
type benchResult struct {
	Policy      string                  `json:"policy"`
	Source      string                  `json:"source"`
	Connections int                     `json:"connections"`
	Asked       int                     `json:"asked"` // decisions of a round
	Decisions   float64                 `json:"decisions_per_second"`
	NS          float64                 `json:"ns"`
	Allocs      float64                 `json:"allocs"`
	P50         int64                   `json:"p50_ns"` // with the clock
	P99         int64                   `json:"p99_ns"`
	EmptyNS     float64                 `json:"empty_ns"`
	Ratio       float64                 `json:"ratio"`
	Callouts    map[string]calloutBench `json:"callouts"`
}

type calloutBench struct {
	Asked    float64 `json:"asked"` // of all decisions
	Fuel     float64 `json:"fuel"`  // of one that it was asked for
	Failures uint64  `json:"failures"`
}

// turns is how often policy and empty policy take turns; the median counts.
const turns = 11

// parts is how many parts of equal length measuring has: first all is made warm, and last
// come the latencies.
const parts = 2 + 2*turns + turns

// measure decides the mix with the policy and with none, in turns.
func measure(ctx context.Context, p *policyrun.Policy, x *mix, long time.Duration, bar *progress) *benchResult {
	bar.at(0, 0)
	r := &benchResult{Asked: len(x.asked), Callouts: map[string]calloutBench{}}
	empty := emptyEngine()
	decide(ctx, p.Engine, x, long/turns) // Everything is warm once.
	decide(ctx, empty, x, long/turns)
	before := stats(p)
	var with, without []float64
	var n, allocs uint64
	for i := range turns {
		if ctx.Err() != nil {
			return r
		}
		t := decide(ctx, p.Engine, x, long/turns)
		with, n, allocs = append(with, t.ns), n+t.n, allocs+t.allocs
		without = append(without, decide(ctx, empty, x, long/turns).ns)
		bar.at(int64(2+2*(i+1)), int(n))
	}
	for id, now := range stats(p) {
		old := before[id]
		c := calloutBench{Asked: float64(now.Decisions-old.Decisions) / float64(n), Failures: now.Failures - old.Failures}
		if d := now.Decisions - old.Decisions; d > 0 {
			c.Fuel = float64(now.Slices-old.Slices) * meter.SliceFuel / float64(d)
		}
		r.Callouts[id] = c
	}
	r.NS, r.EmptyNS = median(with), median(without)
	r.Decisions, r.Ratio, r.Allocs = 1e9/r.NS, r.NS/r.EmptyNS, float64(allocs)/float64(n)
	r.P50, r.P99 = latencies(ctx, p.Engine, x, long)
	return r
}

// stats are the figures of the modules, by callout.
func stats(p *policyrun.Policy) map[string]guest.Stats {
	out := map[string]guest.Stats{}
	for id, m := range p.Modules {
		out[string(id)] = m.Stats()
	}
	return out
}

type turn struct {
	n, allocs uint64
	ns        float64 // of one
}

// decide decides the whole mix until so long has passed. The clock is read once a
// round of the mix, or every some hundred decisions.
func decide(ctx context.Context, c fwps.Classifier, x *mix, long time.Duration) (t turn) {
	var d fwps.Decision
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	mallocs, began := mem.Mallocs, time.Now()
	rounds := 1 + 256/len(x.asked)
	var took time.Duration
	for took < long {
		for range rounds {
			for k := range x.asked {
				c.Classify(ctx, &x.asked[k], &d)
			}
		}
		t.n += uint64(rounds * len(x.asked))
		took = time.Since(began)
	}
	runtime.ReadMemStats(&mem)
	t.allocs, t.ns = mem.Mallocs-mallocs, float64(took.Nanoseconds())/float64(t.n)
	return t
}

const maxLatencies = 1 << 20

// latencies are the median and the slowest but one of a hundred, the clock
// included.
func latencies(ctx context.Context, c fwps.Classifier, x *mix, long time.Duration) (p50, p99 int64) {
	var d fwps.Decision
	took := make([]int64, 0, maxLatencies)
	for end, k := time.Now().Add(long), 0; len(took) < maxLatencies; k++ {
		began := time.Now()
		c.Classify(ctx, &x.asked[k%len(x.asked)], &d)
		now := time.Now()
		took = append(took, now.Sub(began).Nanoseconds())
		if now.After(end) {
			break
		}
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*99/100]
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func (r *benchResult) write(out io.Writer) error {
	fmt.Fprintf(out, "%s: %d connections of %s, %d decisions\n", r.Policy, r.Connections, r.Source, r.Asked)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "a decision\t%.0f ns, %.2f allocations; %.0f a second\n", r.NS, r.Allocs, r.Decisions)
	fmt.Fprintf(t, "with the clock\tmedian %d ns, 99 of 100 within %d ns\n", r.P50, r.P99)
	fmt.Fprintf(t, "an empty policy\t%.0f ns: this one takes %.1f times as long\n", r.EmptyNS, r.Ratio)
	for _, id := range slices.Sorted(maps.Keys(r.Callouts)) {
		c := r.Callouts[id]
		fmt.Fprintf(t, "callout %s\tasked by %.0f %% of the decisions, %s units of fuel each, %d failures\n", id, 100*c.Asked, count(int(c.Fuel)), c.Failures)
	}
	return t.Flush()
}
