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

// A mirror is what goes through a layer's filters one by one.
type mirror struct {
	lists map[fwpm.SublayerID][]entry
}

func newMirror(p *fwpm.Policy) *mirror {
	m := &mirror{map[fwpm.SublayerID][]entry{}}
	c := newCompiler(new(Program), 0)
	for i := range p.Filters {
		out := new(filter)
		e := c.fill(out, &p.Filters[i])
		out.own()
		id := sublayerOf(&p.Filters[i])
		m.lists[id] = append(m.lists[id], e)
	}
	for _, fs := range m.lists {
		slices.SortFunc(fs, func(a, b entry) int { return before(&a, &b) })
	}
	return m
}

// holds is a filter's conditions as they were written, without brief and index.
func holds(f *fwpm.Filter, in *fwps.Incoming) bool {
	met := map[fwpm.ConditionID]bool{}
	for i := range f.Conditions {
		c := &f.Conditions[i]
		met[c.Field] = met[c.Field] || Holds(c, in)
	}
	for _, ok := range met {
		if !ok {
			return false
		}
	}
	return true
}

// check compares the matching filters of every sublayer, in order.
func (m *mirror) check(t *testing.T, prog *Program, ins []fwps.Incoming) {
	for i := range ins {
		in := &ins[i]
		for _, g := range prog.layer(in.Layer).groups {
			for place, id := range g.subs {
				var want, got []fwpm.FilterID
				for _, e := range m.lists[id] {
					if holds(e.f.Filter, in) {
						want = append(want, e.f.ID)
					}
				}
				for f := g.next(in, place, cursor{}); f != nil; f = g.next(in, place, cursor{f.weight(), f.ID, true}) {
					got = append(got, f.ID)
				}
				require.Equal(t, want, got)
			}
		}
		for id := range m.lists {
			require.Contains(t, prog.layer(in.Layer).places, id)
		}
	}
}

// The index gives the matching filters of every sublayer in the order in which
// going through them one by one does.
func TestIndexIsTheList(t *testing.T) {
	for _, l := range []fwpm.LayerID{fwpm.LayerALEAuthConnectV4, fwpm.LayerALEAuthConnectV6} {
		for _, n := range []int{1, 10, 40, 300, 3000, 20_000} {
			g := load.New(1, l, n)
			p := g.Policy(n)
			prog, err := Compile(p, Options{})
			require.NoError(t, err)
			ins := g.Connections(p, 100_000/(n+2000))
			for i := 0; i < len(ins); i += 3 {
				ins[i].Flags = fwp.FlagIsLoopback
			}
			newMirror(p).check(t, prog, ins)
		}
	}
}

// A changed program is the program of the changed policy, and the one before is
// what it was. Filters of all kinds come and go, sublayers come in any order, and
// in the end everything goes.
func TestChangeIsCompile(t *testing.T) {
	for _, l := range []fwpm.LayerID{fwpm.LayerALEAuthConnectV4, fwpm.LayerALEAuthConnectV6} {
		g := load.New(2, l, 1000)
		p := &fwpm.Policy{}
		for i := range 20 {
			p.Sublayers = append(p.Sublayers, fwpm.Sublayer{ID: fwpm.SublayerID(fmt.Sprint("s", i)), Weight: uint16(g.Rand.IntN(5))})
		}
		prog, err := Compile(p, Options{})
		require.NoError(t, err)
		type version struct {
			prog *Program
			p    *fwpm.Policy
		}
		var versions []version
		id := 0
		for round := range 40 {
			filters := slices.Clone(p.Filters)
			g.Rand.Shuffle(len(filters), func(i, j int) { filters[i], filters[j] = filters[j], filters[i] })
			gone, came := g.Rand.IntN(len(filters)/3+1), []int{1, 30, 300}[round%3]
			if last := round - 34; last > 0 {
				gone, came = len(filters)*last/5, 0
			}
			var ch Change
			for _, f := range filters[:gone] {
				ch.Gone = append(ch.Gone, &f)
			}
			stay := len(filters) - gone
			filters = slices.Clone(filters[gone:])
			for range came {
				id++
				f := g.Filter(id)
				f.Sublayer = fwpm.SublayerID(fmt.Sprint("s", g.Rand.IntN(min(round+1, 20))))
				filters = append(filters, f)
			}
			p = &fwpm.Policy{Sublayers: p.Sublayers, Filters: filters}
			for i := stay; i < len(filters); i++ {
				ch.Came = append(ch.Came, &filters[i])
			}
			if round%5 == 4 {
				p.Sublayers = slices.Clone(p.Sublayers)
				p.Sublayers[g.Rand.IntN(20)].Weight = uint16(g.Rand.IntN(5))
				objects, err := NewChecker(p)
				require.NoError(t, err)
				ch.Objects = objects
			}
			prog, err = prog.Change(ch)
			require.NoError(t, err)
			versions = append(versions, version{prog, p})
		}
		for _, v := range versions {
			if len(v.p.Filters) == 0 {
				continue
			}
			newMirror(v.p).check(t, v.prog, g.Connections(v.p, 8))
			require.Len(t, v.prog.filters(), len(v.p.Filters))
		}
		require.Empty(t, prog.filters())
		for _, g := range prog.layer(l).groups {
			require.Equal(t, index{}, g.index, "nothing is left behind")
		}
	}
}

// Conditions are made ready in memory that is used again: what is kept of them is the
// filter's own, whatever filters come and go after it, with few conditions or many.
func TestFiltersShareNoConditions(t *testing.T) {
	l := fwpm.LayerALEAuthConnectV6
	filter := func(i int) *fwpm.Filter {
		f := &fwpm.Filter{ID: fwpm.FilterID(i + 1), Name: "f", Layer: l, Action: fwp.ActionPermit}
		add := func(c fwpm.ConditionID, m fwp.Match, v fwp.Value) {
			f.Conditions = append(f.Conditions, fwpm.Condition{Field: c, Match: m, Value: v})
		}
		for j := range 2 { // alternatives: no brief has room for them
			add(fwpm.ConditionALEAppID, fwp.MatchEqual, fwp.Blob(fmt.Sprint("/bin/", 2*i+j)))
			add(fwpm.ConditionALEUserID, fwp.MatchEqual, fwp.Allow(fwp.UserSID(uint32(2*i+j))))
			add(fwpm.ConditionIPLocalAddress, fwp.MatchEqual, fwp.Addr(netip.AddrFrom16([16]byte{0x20, 1, byte(i), byte(j)})))
		}
		for j := range i % 3 * 50 {
			add(fwpm.ConditionIPLocalPort, fwp.MatchEqual, fwp.U16(uint16(j)))
		}
		return f
	}
	const n = 30
	p := &fwpm.Policy{}
	var ins []fwps.Incoming
	for i := range n {
		p.Filters = append(p.Filters, *filter(i))
		for j := range 2 {
			ins = append(ins, fwps.Incoming{Layer: l, AppID: fmt.Sprint("/bin/", 2*i+j), UserKnown: true, UserID: uint32(2*i + j),
				Local: netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, byte(i), byte(j)}), 1)})
		}
	}
	prog, err := Compile(p, Options{})
	require.NoError(t, err)
	newMirror(p).check(t, prog, ins)
	for i := range n {
		prog, err = prog.Change(Change{Gone: []*fwpm.Filter{filter(i)}, Came: []*fwpm.Filter{filter(i)}})
		require.NoError(t, err)
	}
	newMirror(p).check(t, prog, ins)
	d := new(fwps.Decision)
	for i := range ins {
		prog.Classify(t.Context(), &ins[i], d)
		require.Len(t, d.Steps, 1, "connection %d meets its filter", i)
	}
}

// Filters that no way tells apart are a list in chunks. It loses the filter that goes
// and no other, in whatever order they go: the first first, the last first, the oldest.
func TestOnlyTheFilterThatGoesIsLost(t *testing.T) {
	l := fwpm.LayerALEAuthConnectV4
	const n = 300
	for name, at := range map[string]func(left int) int{"first": func(int) int { return 0 }, "last": func(left int) int { return left - 1 },
		"between": func(left int) int { return left / 2 }} {
		p := new(fwpm.Policy)
		for id := 1; id <= n; id++ {
			p.Filters = append(p.Filters, fwpm.Filter{ID: fwpm.FilterID(id), Name: "f", Layer: l, Action: fwp.ActionBlock,
				Conditions: []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Match: fwp.MatchRange, Value: fwp.Between(fwp.U16(500), fwp.U16(uint16(600+id)))}}})
		}
		prog, err := Compile(p, Options{})
		require.NoError(t, err)
		in := fwps.Incoming{Layer: l, Protocol: 6, Remote: netip.MustParseAddrPort("198.51.100.7:550")}
		for left := p.Filters; len(left) > 0; {
			newMirror(&fwpm.Policy{Filters: left}).check(t, prog, []fwps.Incoming{in})
			i := at(len(left))
			gone := left[i]
			left = slices.Delete(slices.Clone(left), i, i+1)
			prog, err = prog.Change(Change{Gone: []*fwpm.Filter{&gone}})
			require.NoError(t, err, "%s goes", name)
		}
		require.Empty(t, prog.filters())
	}
}

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
