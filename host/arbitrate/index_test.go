package arbitrate

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
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

// Sublayers that come and go, as those of dynamic sessions do, leave no places behind for
// each classification to look at.
func TestSublayersThatAreGoneLeaveNoPlaces(t *testing.T) {
	g := load.New(4, fwpm.LayerALEAuthConnectV4, 100)
	stay := g.Policy(100)
	for name, weight := range map[string]func(i int) uint16{"heavy": func(int) uint16 { return 0xffff }, "light": func(int) uint16 { return 1 },
		"both": func(i int) uint16 { return uint16(i % 2 * 0xffff) }} {
		t.Run(name, func(t *testing.T) {
			prog, err := Compile(stay, Options{})
			require.NoError(t, err)
			change := func(p *fwpm.Policy, ch Change) {
				ch.Objects, err = NewChecker(p)
				require.NoError(t, err)
				prog, err = prog.Change(ch)
				require.NoError(t, err)
			}
			most := 0
			for i := range 200 {
				p := stay.Clone()
				s := fwpm.Sublayer{ID: fwpm.SublayerID(fmt.Sprint("t", i)), Weight: weight(i)}
				p.Sublayers = append(p.Sublayers, s)
				f := g.Filter(1000 + i)
				f.Sublayer = s.ID
				p.Filters = append(p.Filters, f)
				change(p, Change{Came: []*fwpm.Filter{&f}})
				if i%20 == 19 {
					newMirror(p).check(t, prog, g.Connections(p, 8))
				}
				change(stay, Change{Gone: []*fwpm.Filter{&f}})
				most = max(most, len(prog.layer(f.Layer).subs()))
			}
			require.LessOrEqual(t, most, len(stay.Sublayers)+2+2*together)
			require.Len(t, prog.layer(g.Filter(1).Layer).places, len(prog.layer(g.Filter(1).Layer).subs()))
			newMirror(stay).check(t, prog, g.Connections(stay, 8))
		})
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
