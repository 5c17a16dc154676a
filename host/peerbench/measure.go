package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/sample"
)

// options say how long to measure.
type options struct {
	batch  time.Duration
	rounds int
}

// A row is what a variant takes for one decision.
type row struct {
	Name   string  `json:"name"`
	Kind   string  `json:"kind"`
	Host   string  `json:"by_the_host,omitempty"`
	Ns     float64 `json:"ns"`
	Median float64 `json:"median_ns"`
	Bytes  float64 `json:"bytes"`
	Allocs float64 `json:"allocs"`
	Ratio  float64 `json:"to_closure"`
}

// A runner is a variant that has started.
type runner struct {
	variant
	*subject
	calls []*fwps.Call
	v     fwps.Verdict
	next  int
	batch int       // decisions in a round
	took  []float64 // by round
	row   row
}

// measure starts all variants, makes sure that they decide the same, and then
// runs them in turn, round after round, so that a time when the machine is busy
// hits all alike.
func measure(ctx context.Context, vs []variant, o options) (*report, error) {
	var all []*runner
	defer func() {
		for _, r := range all {
			r.close()
		}
	}()
	for _, v := range vs {
		r, err := start(ctx, v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.name, err)
		}
		all = append(all, r)
	}
	for _, r := range all {
		if err := r.prepare(o.batch); err != nil {
			return nil, fmt.Errorf("%s: %w", r.name, err)
		}
	}
	for range o.rounds {
		for _, r := range all {
			took, err := r.run(r.batch)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", r.name, err)
			}
			r.took = append(r.took, took)
		}
	}
	out := &report{Go: runtime.Version(), Processors: runtime.GOMAXPROCS(0), Rounds: o.rounds}
	for _, r := range all {
		slices.Sort(r.took)
		r.row.Ns, r.row.Median = r.took[0], r.took[len(r.took)/2]
		r.row.Ratio = r.row.Ns / all[0].row.Ns
		out.Rows = append(out.Rows, r.row)
	}
	return out, nil
}

func start(ctx context.Context, v variant) (*runner, error) {
	s, err := v.start(ctx)
	if err != nil {
		return nil, err
	}
	if v.name != emptyName {
		if err := s.check(ctx); err != nil {
			s.close()
			return nil, err
		}
	}
	return &runner{variant: v, subject: s, calls: shuffled(), row: row{Name: v.name, Kind: v.kind, Host: v.host}}, nil
}

// shuffled are the connections many times over in an order that looks like none, the
// same for all variants. In a short one that comes again and again the processor
// learns what is decided next, of the shortest code the most: connections that are
// made by people come in no order.
func shuffled() []*fwps.Call {
	calls := slices.Repeat(sample.Calls(), 512)
	r := rand.New(rand.NewPCG(1, 2))
	r.Shuffle(len(calls), func(i, j int) { calls[i], calls[j] = calls[j], calls[i] })
	return calls
}

// prepare finds how many decisions fit a round and counts their allocations.
func (r *runner) prepare(batch time.Duration) error {
	for n := 8; ; n *= 2 {
		took, err := r.run(n)
		if err != nil {
			return err
		}
		again, err := r.run(n) // Once the machine may have been busy with something else.
		if err != nil {
			return err
		}
		if took = min(took, again); time.Duration(took*float64(n)) >= batch/4 {
			r.batch = max(8, int(float64(batch)/took))
			break
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := r.run(r.batch); err != nil {
		return err
	}
	runtime.ReadMemStats(&after)
	n := float64(r.batch)
	r.row.Bytes = float64(after.TotalAlloc-before.TotalAlloc) / n
	r.row.Allocs = float64(after.Mallocs-before.Mallocs) / n
	return nil
}

// run makes n decisions and returns the nanoseconds of one.
func (r *runner) run(n int) (float64, error) {
	r.v.Hint = 0 // The next instance.
	if r.turn != nil {
		r.turn()
	}
	at := time.Now()
	for range n {
		r.v.Reset()
		if err := r.decide(r.calls[r.next], &r.v); err != nil {
			return 0, err
		}
		if r.next++; r.next == len(r.calls) {
			r.next = 0
		}
	}
	return float64(time.Since(at).Nanoseconds()) / float64(n), nil
}
