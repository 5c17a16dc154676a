package host_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// engines are what a classification can meet at a layer.
var engines = []struct {
	name string
	make func(tb testing.TB, l fwpm.LayerID) *host.Engine
}{
	{"floor", func(testing.TB, fwpm.LayerID) *host.Engine { return host.New(host.Options{}) }},
	{"1-filter", func(tb testing.TB, l fwpm.LayerID) *host.Engine {
		return loaded(tb, nil, fwpm.Filter{ID: 1, Name: "all", Layer: l, Action: permit})
	}},
	{"go-callout", func(tb testing.TB, l fwpm.LayerID) *host.Engine {
		return loaded(tb, answering(permit), fwpm.Filter{ID: 1, Name: "asks", Layer: l, Action: ask, Callout: "c"})
	}},
	{"100-filters", func(tb testing.TB, l fwpm.LayerID) *host.Engine {
		var fs []fwpm.Filter
		for i := range 100 {
			f := fwpm.Filter{ID: fwpm.FilterID(i + 1), Name: fmt.Sprint(i), Layer: l, Action: block}
			f.Conditions = []fwpm.Condition{cond(fwpm.ConditionALEUserID, fwp.MatchEqual, fwp.Allow(fwp.UserSID(uint32(i))))}
			if addr := fwpm.ConditionIPLocalAddress; l.Offers(addr) && !l.IsV6() {
				f.Conditions = append(f.Conditions, cond(addr, fwp.MatchEqual, fwp.Addr(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))))
			}
			fs = append(fs, f)
		}
		return loaded(tb, nil, fs...)
	}},
}

func loaded(tb testing.TB, c fwps.Callout, fs ...fwpm.Filter) *host.Engine {
	e := host.New(host.Options{})
	if c != nil {
		_, _, err := e.RegisterCallout("c", c)
		require.NoError(tb, err)
	}
	require.NoError(tb, e.Update(func(p *fwpm.Policy) error {
		p.Callouts, p.Filters = []fwpm.Callout{{ID: "c"}}, fs
		return nil
	}))
	return e
}

// A classification allocates nothing: not for a callout, for counting, nor for
// telling of it.
func TestClassifyAllocatesNothing(t *testing.T) {
	for _, l := range fwpm.Layers() {
		for _, c := range engines {
			t.Run(l.String()+"/"+c.name, func(t *testing.T) {
				e := c.make(t, l)
				s := open(t, e, host.SessionOptions{})
				in, d, ctx := incoming(l), new(fwps.Decision), t.Context()
				for _, told := range []bool{false, true} {
					if told {
						require.NoError(t, s.SetOption(fwpm.EngineNetEventMatchAnyKeywords, uint32(fwpm.NetEventKeywordClassifyAllow)))
						_, err := s.NetEventSubscribe(func(fwpm.NetEvent) {})
						require.NoError(t, err)
					}
					require.Zero(t, testing.AllocsPerRun(20, func() { e.Classify(ctx, &in, d) }), "somebody listens: %v", told)
				}
			})
		}
	}
}

func BenchmarkClassify(b *testing.B) {
	for _, l := range fwpm.Layers() {
		for _, c := range engines {
			b.Run(l.String()+"/"+c.name, func(b *testing.B) {
				e := c.make(b, l)
				in, d := incoming(l), new(fwps.Decision)
				b.ReportAllocs()
				for b.Loop() {
					e.Classify(b.Context(), &in, d)
				}
			})
		}
	}
}

// As many goroutines as processors: with nothing shared it takes as long as one
// alone, divided by their number.
func BenchmarkClassifyParallel(b *testing.B) {
	for _, c := range engines {
		b.Run(c.name, func(b *testing.B) {
			e := c.make(b, layer)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				in, d := incoming(layer), new(fwps.Decision)
				for pb.Next() {
					e.Classify(b.Context(), &in, d)
				}
			})
		})
	}
}

// A subscriber's price, and OnDecision's.
func BenchmarkClassifyTold(b *testing.B) {
	for name, subscribe := range map[string]bool{"nobody": false, "a subscriber": true} {
		b.Run(name, func(b *testing.B) {
			e := loaded(b, nil, fwpm.Filter{ID: 1, Name: "all", Layer: layer, Action: block})
			if subscribe {
				s, err := e.Open(host.SessionOptions{})
				require.NoError(b, err)
				defer s.Close()
				_, err = s.NetEventSubscribe(func(fwpm.NetEvent) {})
				require.NoError(b, err)
			}
			in, d := incoming(layer), new(fwps.Decision)
			for b.Loop() {
				e.Classify(b.Context(), &in, d)
			}
		})
	}
}

// The price of a commit by the size of the policy it commits to.
func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{0, 100, 10_000, 100_000} {
		b.Run(fmt.Sprintf("%d-filters", n), func(b *testing.B) {
			var fs []fwpm.Filter
			for i := range n {
				fs = append(fs, fwpm.Filter{ID: fwpm.FilterID(i + 1), Name: fmt.Sprint(i), Layer: layer, Action: block,
					Sublayer: fwpm.SublayerID(fmt.Sprint(i % 10)), Conditions: []fwpm.Condition{cond(fwpm.ConditionIPRemotePort, fwp.MatchEqual, fwp.U16(uint16(i%1000)))}})
			}
			e := host.New(host.Options{})
			require.NoError(b, e.Update(func(p *fwpm.Policy) error {
				for i := range 10 {
					p.Sublayers = append(p.Sublayers, fwpm.Sublayer{ID: fwpm.SublayerID(fmt.Sprint(i))})
				}
				p.Filters = fs
				return nil
			}))
			s, err := e.Open(host.SessionOptions{})
			require.NoError(b, err)
			defer s.Close()
			b.ReportAllocs()
			for b.Loop() {
				id, err := s.FilterAdd(fwpm.Filter{Name: "one more", Layer: layer, Action: block})
				require.NoError(b, err)
				require.NoError(b, s.FilterDelete(id))
			}
		})
	}
}
