// Package benchscale measures how the filter engine's costs grow with the number of
// filters.
package benchscale

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/cputime"
	"github.com/calloutd/calloutd/host/internal/load"
)

// Sizes are the numbers of filters unless told otherwise. The first one is what the
// others are compared with.
var Sizes = []int{10, 1_000, 100_000, 1_000_000}

const (
	// connections take turns: so many that what they need is in no near cache.
	connections = 4096
	// known of them come again and again where the decision is known.
	known = 256
	// rounds of them are measured; the best counts.
	rounds = 24
	// changes in a round, each one filter that goes and one that comes.
	changes, changeRounds = 500, 8
)

// A Row is what was measured with a number of filters. Times are of the thread, so
// that other work on the machine counts as little as possible, and the best of
// several rounds.
type Row struct {
	Filters int `json:"filters"`
	// Match is one classification in three sublayers, and Ratio that of the first row.
	Match float64 `json:"match_ns"`
	Ratio float64 `json:"ratio"`
	// Known is one that was decided before, of a few connections in turn.
	Known float64 `json:"known_ns"`
	// Bytes is the program's memory a filter, beside the policy it was compiled from.
	Bytes float64 `json:"bytes_per_filter"`
	// Update is a change in which one filter goes and one comes.
	Update float64 `json:"update_ns"`
	// Pause is the longest stop of the world of ten collections with the program live.
	Pause float64 `json:"gc_pause_ns"`
}

// Run measures each size. It tells of its progress and ends early with ctx.
func Run(ctx context.Context, sizes []int, progress func(string)) ([]Row, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var rows []Row
	for _, n := range sizes {
		if n < 1 {
			return nil, fmt.Errorf("%d filters cannot be measured: expected at least 1", n)
		}
		progress(fmt.Sprintf("%d filters", n))
		row, err := measure(ctx, n)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
		rows[len(rows)-1].Ratio = row.Match / rows[0].Match
	}
	return rows, nil
}

func measure(ctx context.Context, n int) (Row, error) {
	g := load.New(1, fwpm.LayerALEAuthConnectV4, n)
	p := g.Policy(n)
	ins := g.Connections(p, connections)
	row := Row{Filters: n}
	var err error
	if row.Known, err = cached(ctx, p, ins[:known]); err != nil {
		return Row{}, err
	}
	before := heap()
	prog, err := arbitrate.Compile(p, arbitrate.Options{})
	if err != nil {
		return Row{}, err
	}
	row.Bytes, row.Pause = float64(heap()-before)/float64(n), float64(pause())
	d := new(fwps.Decision)
	row.Match = float64(cputime.Best(rounds, connections, func(i int) {
		prog.Classify(ctx, &ins[i%connections], d)
	}))
	if err := ctx.Err(); err != nil {
		return Row{}, context.Cause(ctx)
	}
	row.Update, err = updates(prog, g, p)
	runtime.KeepAlive(p)
	return row, err
}

// cached is the time of one classification of a program with a cache.
func cached(ctx context.Context, p *fwpm.Policy, ins []fwps.Incoming) (ns float64, err error) {
	prog, err := arbitrate.Compile(p, arbitrate.Options{Cache: arbitrate.NewCache(8 * len(ins))})
	if err != nil {
		return 0, err
	}
	runtime.GC() // While the collection that the compilation caused is under way, pointers are written slowly.
	d := new(fwps.Decision)
	return float64(cputime.Best(rounds, connections, func(i int) {
		prog.Classify(ctx, &ins[i%len(ins)], d)
	})), nil
}

// updates is the time of one change: the oldest filter goes and a new one comes.
func updates(prog *arbitrate.Program, g *load.Load, p *fwpm.Policy) (ns float64, err error) {
	filters := make([]*fwpm.Filter, len(p.Filters), len(p.Filters)+changes*changeRounds)
	for i := range p.Filters {
		filters[i] = &p.Filters[i]
	}
	for i := range changes * changeRounds {
		f := g.Filter(len(p.Filters) + i + 1)
		filters = append(filters, &f)
	}
	best := cputime.Best(changeRounds, changes, func(i int) {
		next, e := prog.Change(arbitrate.Change{Gone: filters[i : i+1], Came: filters[i+len(p.Filters):][:1]})
		if e != nil {
			err = e
			return
		}
		prog = next
	})
	return float64(best), err
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func pause() time.Duration {
	const collections = 10
	for range collections {
		runtime.GC()
	}
	var s debug.GCStats
	debug.ReadGCStats(&s)
	longest := time.Duration(0)
	for _, p := range s.Pause[:min(collections, len(s.Pause))] {
		longest = max(longest, p)
	}
	return longest
}
