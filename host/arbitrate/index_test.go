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
)

// A load makes policies and connections that look like those of a large site:
// prefixes of all lengths, ports and port ranges, programs, users, few filters
// that say little. Half of the connections aim at a filter.
type load struct {
	r     *rand.Rand
	layer fwpm.LayerID
	ports []uint16
	apps  int
}

func newLoad(seed uint64, l fwpm.LayerID, n int) *load {
	g := &load{r: rand.New(rand.NewPCG(seed, uint64(n))), layer: l, apps: max(10, n/10)}
	for range 200 {
		g.ports = append(g.ports, uint16(g.r.IntN(20000)+1))
	}
	return g
}

func (g *load) address() netip.Addr {
	if g.layer.IsV6() {
		b := [16]byte{0x20, 1, 15: byte(g.r.IntN(256))}
		for i := 2; i < 8; i++ {
			b[i] = byte(g.r.IntN(8))
		}
		return netip.AddrFrom16(b)
	}
	return netip.AddrFrom4([4]byte{byte(16 + g.r.IntN(16)), byte(g.r.IntN(256)), byte(g.r.IntN(256)), byte(g.r.IntN(256))})
}

func (g *load) app() string { return fmt.Sprintf("/usr/bin/program-%d", g.r.IntN(g.apps)) }

// bits is a prefix length: few short ones.
func (g *load) bits() int {
	x := g.r.IntN(100)
	v4, v6 := 32, 128
	switch {
	case x < 2:
		v4, v6 = 8, 16
	case x < 17:
		v4, v6 = 16, 32
	case x < 67:
		v4, v6 = 24, 48
	}
	if g.layer.IsV6() {
		return v6
	}
	return v4
}

func (g *load) filter(id int) fwpm.Filter {
	f := fwpm.Filter{ID: fwpm.FilterID(id), Name: "f", Layer: g.layer, Action: fwp.ActionPermit, Sublayer: fwpm.SublayerID(fmt.Sprint("s", id%3))}
	if g.r.IntN(2) == 0 {
		f.Action = fwp.ActionBlock
	}
	add := func(c fwpm.ConditionID, m fwp.Match, v fwp.Value) {
		f.Conditions = append(f.Conditions, fwpm.Condition{Field: c, Match: m, Value: v})
	}
	if g.r.IntN(10) < 7 {
		add(fwpm.ConditionIPRemoteAddress, fwp.MatchEqual, fwp.Mask(netip.PrefixFrom(g.address(), g.bits())))
		if g.r.IntN(20) == 0 {
			add(fwpm.ConditionIPRemoteAddress, fwp.MatchEqual, fwp.Addr(g.address()))
		}
	}
	switch x := g.r.IntN(100); {
	case x < 60:
		add(fwpm.ConditionIPRemotePort, fwp.MatchEqual, fwp.U16(g.ports[g.r.IntN(len(g.ports))]))
	case x < 75:
		low := uint16(g.r.IntN(60000))
		add(fwpm.ConditionIPRemotePort, fwp.MatchRange, fwp.Between(fwp.U16(low), fwp.U16(low+uint16(g.r.IntN(5000)))))
	}
	switch x := g.r.IntN(10); {
	case x < 6:
		add(fwpm.ConditionIPProtocol, fwp.MatchEqual, fwp.U8(6))
	case x < 8:
		add(fwpm.ConditionIPProtocol, fwp.MatchEqual, fwp.U8(17))
	}
	if g.r.IntN(2) == 0 {
		add(fwpm.ConditionALEAppID, fwp.MatchEqual, fwp.Blob(g.app()))
	}
	if g.r.IntN(10) < 3 {
		add(fwpm.ConditionALEUserID, fwp.MatchEqual, fwp.Allow(fwp.UserSID(uint32(g.r.IntN(1000)))))
	}
	if len(f.Conditions) < 2 && id > 40 {
		add(fwpm.ConditionIPLocalPort, fwp.MatchEqual, fwp.U16(uint16(g.r.IntN(60000))))
	}
	if g.r.IntN(50) == 0 {
		add(fwpm.ConditionFlags, fwp.MatchFlagsAllSet, fwp.U32(uint32(fwp.FlagIsLoopback)))
	}
	return f
}

func (g *load) policy(n int) *fwpm.Policy {
	p := &fwpm.Policy{Sublayers: []fwpm.Sublayer{{ID: "s0", Weight: 3}, {ID: "s1", Weight: 2}, {ID: "s2", Weight: 1}}}
	for id := 1; id <= n; id++ {
		p.Filters = append(p.Filters, g.filter(id))
	}
	return p
}

// connections are half aimed at filters and half at random.
func (g *load) connections(p *fwpm.Policy, n int) []fwps.Incoming {
	out := make([]fwps.Incoming, n)
	for i := range out {
		in := fwps.Incoming{Layer: g.layer, Protocol: 6, AppID: g.app(), UserID: uint32(g.r.IntN(1000)), UserKnown: true,
			Local: netip.AddrPortFrom(g.address(), uint16(g.r.IntN(60000))), Remote: netip.AddrPortFrom(g.address(), g.ports[g.r.IntN(len(g.ports))])}
		if i%2 == 0 {
			aim(&in, &p.Filters[g.r.IntN(len(p.Filters))])
		}
		out[i] = in
	}
	return out
}

func aim(in *fwps.Incoming, f *fwpm.Filter) {
	for _, c := range f.Conditions {
		switch {
		case c.Value.Prefix.IsValid():
			in.Remote = netip.AddrPortFrom(c.Value.Prefix.Addr(), in.Remote.Port())
		case c.Field == fwpm.ConditionIPRemotePort && c.Match == fwp.MatchEqual:
			in.Remote = netip.AddrPortFrom(in.Remote.Addr(), uint16(c.Value.Uint))
		case c.Field == fwpm.ConditionIPProtocol:
			in.Protocol = uint8(c.Value.Uint)
		case c.Field == fwpm.ConditionALEAppID:
			in.AppID = c.Value.Text
		case c.Field == fwpm.ConditionALEUserID:
			in.UserID, _, _ = c.Value.SD.ACEs[0].SID.Unix()
		}
	}
}

// The index gives the matching filters of every sublayer in the order in which
// going through them one by one does.
func TestIndexIsTheList(t *testing.T) {
	for _, l := range []fwpm.LayerID{fwpm.LayerALEAuthConnectV4, fwpm.LayerALEAuthConnectV6} {
		for _, n := range []int{1, 10, 40, 300, 3000} {
			g := newLoad(1, l, n)
			p := g.policy(n)
			prog, err := Compile(p, Options{})
			require.NoError(t, err)
			lists := map[fwpm.SublayerID][]*filter{}
			c := compiler{texts: map[string]*more{}, users: map[uint32]*more{}}
			for i := range p.Filters {
				f := &p.Filters[i]
				lists[f.Sublayer] = append(lists[f.Sublayer], c.filter(f))
			}
			for _, fs := range lists {
				slices.SortFunc(fs, before)
			}
			for _, in := range g.connections(p, 300) {
				g := &prog.layers[l][0]
				for place, id := range g.subs {
					var want, got []fwpm.FilterID
					for _, f := range lists[id] {
						if q := newSearch(&in, 0, cursor{}); f.meets(&q) && f.matches(&in) {
							want = append(want, f.ID)
						}
					}
					for f := g.next(&in, place, cursor{}); f != nil; f = g.next(&in, place, cursor{f.weight, f.ID, true}) {
						got = append(got, f.ID)
					}
					require.Equal(t, want, got)
				}
			}
		}
	}
}

// BenchmarkScale is one classification in three sublayers; "B/filter" is what the
// program takes beside the policy it was compiled from.
func BenchmarkScale(b *testing.B) {
	l := fwpm.LayerALEAuthConnectV4
	for _, n := range []int{10, 1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("filters=%d", n), func(b *testing.B) {
			g := newLoad(1, l, n)
			p := g.policy(n)
			ins := g.connections(p, 4096)
			before := heap()
			prog, err := Compile(p, Options{})
			require.NoError(b, err)
			size := heap() - before
			d := new(fwps.Decision)
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				prog.Classify(context.Background(), &ins[i%len(ins)], d)
				i++
			}
			b.ReportMetric(float64(size)/float64(n), "B/filter")
			runtime.KeepAlive(p)
		})
	}
}

// BenchmarkWorst are the policies that no index helps with.
func BenchmarkWorst(b *testing.B) {
	l := fwpm.LayerALEAuthConnectV4
	in := &fwps.Incoming{Layer: l, Protocol: 6, AppID: "/bin/app", Local: netip.MustParseAddrPort("192.0.2.1:9"), Remote: netip.MustParseAddrPort("198.51.100.7:443")}
	for name, conditions := range map[string][]fwpm.Condition{
		"all match":               nil,
		"one port, all match":     {{Field: fwpm.ConditionIPRemotePort, Value: fwp.U16(443)}},
		"one port, none match":    {{Field: fwpm.ConditionIPRemotePort, Value: fwp.U16(443)}, {Field: fwpm.ConditionIPLocalAddress, Match: fwp.MatchGreater, Value: fwp.Addr(netip.MustParseAddr("203.0.113.1"))}},
		"port ranges, none match": {{Field: fwpm.ConditionIPRemotePort, Match: fwp.MatchRange, Value: fwp.Between(fwp.U16(500), fwp.U16(600))}},
	} {
		p := new(fwpm.Policy)
		for id := 1; id <= 100_000; id++ {
			p.Filters = append(p.Filters, fwpm.Filter{ID: fwpm.FilterID(id), Name: "f", Layer: l, Action: fwp.ActionBlock, Conditions: conditions})
		}
		prog, err := Compile(p, Options{})
		require.NoError(b, err)
		d := new(fwps.Decision)
		b.Run(name, func(b *testing.B) {
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
