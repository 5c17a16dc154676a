package arbitrate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/cputime"
	"github.com/calloutd/calloutd/host/internal/load"
)

// BenchmarkScale is one classification in three sublayers, the best of rounds of
// 4,096 connections in the thread's own time; "B/filter" is what the program takes
// beside the policy it was compiled from, and "update-ns" a filter that goes and one
// that comes.
func BenchmarkScale(b *testing.B) {
	l := fwpm.LayerALEAuthConnectV4
	for _, n := range []int{10, 1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("filters=%d", n), func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			g := load.New(1, l, n)
			p := g.Policy(n)
			ins := g.Connections(p, 4096)
			before := heap()
			prog, err := Compile(p, Options{})
			require.NoError(b, err)
			size := float64(heap() - before)
			d := new(fwps.Decision)
			b.ResetTimer()
			b.ReportMetric(size/float64(n), "B/filter")
			b.ReportMetric(float64(cputime.Best(max(b.N/len(ins), 1), len(ins), func(i int) {
				prog.Classify(context.Background(), &ins[i%len(ins)], d)
			})), "ns/op")
			came := make([]fwpm.Filter, 1<<15)
			for i := range came {
				came[i] = g.Filter(n + 1 + i)
			}
			i := 0
			b.ReportMetric(float64(cputime.Best(8, 1000, func(int) {
				prog, err = prog.Change(Change{Gone: []*fwpm.Filter{&p.Filters[i%n]}, Came: []*fwpm.Filter{&came[i]}})
				if err != nil {
					b.Fatal(err)
				}
				p.Filters[i%n] = came[i]
				i++
			})), "update-ns")
			runtime.KeepAlive(p)
		})
	}
}

// BenchmarkScaleCold is one classification of a million filters of which nothing is in a
// near cache, and "load-ns" what that memory makes of one read whose address the read
// before it tells: what an index does one after the other takes that many times. Both
// are measured in turn, so that their ratio, "loads", means something on a machine that
// shares its memory.
func BenchmarkScaleCold(b *testing.B) {
	const n, steps = 1_000_000, 20_000
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	g := load.New(1, fwpm.LayerALEAuthConnectV4, n)
	p := g.Policy(n)
	ins := g.Connections(p, 4096)
	prog, err := Compile(p, Options{})
	require.NoError(b, err)
	memory := newCycle(128 << 20)
	d := new(fwps.Decision)
	var match, read []float64
	at := 0
	for range max(b.N, 20) {
		at += memory.sweep() - len(memory)*(len(memory)-1)/2
		match = append(match, float64(cputime.Best(1, len(ins), func(i int) { prog.Classify(context.Background(), &ins[i], d) })))
		read = append(read, float64(cputime.Best(1, steps, func(int) { at = memory[at].next })))
	}
	slices.Sort(match)
	slices.Sort(read)
	m, r := match[len(match)/4], read[len(read)/4]
	b.ReportMetric(m, "ns/op")
	b.ReportMetric(r, "load-ns")
	b.ReportMetric(m/r, "loads")
	runtime.KeepAlive(at)
}

// A cycle goes once through all lines of a piece of memory, in no order.
type cycle []struct {
	next int
	_    [7]int
}

func newCycle(bytes int) cycle {
	c := make(cycle, bytes/64)
	order := rand.New(rand.NewPCG(1, 1)).Perm(len(c))
	for i, at := range order {
		c[at].next = order[(i+1)%len(order)]
	}
	return c
}

// sweep fills the caches with it.
func (c cycle) sweep() (sum int) {
	for i := range c {
		sum += c[i].next
	}
	return sum
}

// BenchmarkWorst are the policies that no index helps with, of 100,000 filters.
func BenchmarkWorst(b *testing.B) {
	l := fwpm.LayerALEAuthConnectV4
	in := &fwps.Incoming{Layer: l, Protocol: 6, AppID: "/bin/app", Local: netip.MustParseAddrPort("192.0.2.1:9"), Remote: netip.MustParseAddrPort("198.51.100.7:443")}
	one := func(c ...fwpm.Condition) func(int) []fwpm.Condition { return func(int) []fwpm.Condition { return c } }
	port := fwpm.Condition{Field: fwpm.ConditionIPRemotePort, Value: fwp.U16(443)}
	for _, c := range []struct {
		name       string
		conditions func(id int) []fwpm.Condition
	}{
		{"wildcards", one()},
		{"overlapping prefixes, all match", func(id int) []fwpm.Condition {
			return []fwpm.Condition{{Field: fwpm.ConditionIPRemoteAddress, Value: fwp.Mask(netip.PrefixFrom(in.Remote.Addr(), id%33).Masked())}}
		}},
		{"one port, all match", one(port)},
		{"one port, another protocol", one(port, fwpm.Condition{Field: fwpm.ConditionIPProtocol, Value: fwp.U8(17)})},
		{"port ranges of one bin, none match", one(fwpm.Condition{Field: fwpm.ConditionIPRemotePort, Match: fwp.MatchRange, Value: fwp.Between(fwp.U16(500), fwp.U16(600))})},
		{"one port, a further test, none match", one(port, fwpm.Condition{Field: fwpm.ConditionIPLocalAddress, Match: fwp.MatchGreater, Value: fwp.Addr(netip.MustParseAddr("203.0.113.1"))})},
	} {
		p := new(fwpm.Policy)
		for id := 1; id <= 100_000; id++ {
			p.Filters = append(p.Filters, fwpm.Filter{ID: fwpm.FilterID(id), Name: "f", Layer: l, Action: fwp.ActionBlock, Conditions: c.conditions(id)})
		}
		prog, err := Compile(p, Options{})
		require.NoError(b, err)
		d := new(fwps.Decision)
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				prog.Classify(context.Background(), in, d)
			}
		})
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
