package arbitrate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/race"
)

// moody answers otherwise each time, and holds the classification now and then. Two of
// one seed do the same as long as both are asked the same.
type moody struct{ rand *rand.Rand }

func newMoody() *moody { return &moody{rand.New(rand.NewPCG(1, 2))} }

func (m *moody) Classify(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
	v.Action = []fwp.Action{fwp.ActionPermit, fwp.ActionBlock, fwp.ActionContinue}[m.rand.IntN(3)]
	if c.In.Flags&fwp.FlagIsReauthorize != 0 || m.rand.IntN(6) > 0 {
		return nil
	}
	if p, err := c.PendClassify(); err == nil {
		var final *fwps.Verdict // asks everybody again
		if m.rand.IntN(2) == 0 {
			final = &fwps.Verdict{Action: v.Action}
		}
		p.Complete(final)
	} else if p, err := c.PendOperation(); err == nil {
		v.Action, v.Absorb = fwp.ActionBlock, true
		p.Complete()
	}
	return nil
}

// twoGroups draws a filter of one of so many sublayers that they have two indexes.
func twoGroups(r *rand.Rand, l fwpm.LayerID, id int) *fwpm.Filter {
	f := &fwpm.Filter{ID: fwpm.FilterID(id), Name: "f", Layer: l, Sublayer: fwpm.SublayerID(fmt.Sprint("s", r.IntN(together+4))),
		Action: []fwp.Action{fwp.ActionPermit, fwp.ActionBlock, fwp.ActionCalloutUnknown}[r.IntN(3)], EffectiveWeight: r.Uint64N(1000)}
	if f.Action == fwp.ActionCalloutUnknown {
		f.Callout = "moody"
	}
	if r.IntN(2) == 0 {
		f.Conditions = append(f.Conditions, fwpm.Condition{Field: fwpm.ConditionIPRemotePort, Value: fwp.U16(uint16(r.IntN(4)))})
	}
	if r.IntN(2) == 0 {
		f.Conditions = append(f.Conditions, fwpm.Condition{Field: fwpm.ConditionFlags, Match: fwp.MatchFlagsAllSet, Value: fwp.U32(uint32(fwp.FlagIsReauthorize))})
	}
	return f
}

// Where callouts are asked each time, which filters match is known all the same, and
// the decision is that of a program without a cache: whatever callouts answer, hold or
// have asked again, with sublayers in two groups, and while filters come and go.
func TestAKnownMatchIsTheMatch(t *testing.T) {
	const filters = fewFilters + 20
	for _, l := range []fwpm.LayerID{fwpm.LayerALEConnectRedirectV4, fwpm.LayerALEAuthRecvAcceptV4} {
		r := rand.New(rand.NewPCG(3, 4))
		p := &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "moody"}}}
		for i := range together + 4 {
			p.Sublayers = append(p.Sublayers, fwpm.Sublayer{ID: fwpm.SublayerID(fmt.Sprint("s", i)), Weight: uint16(i)})
		}
		var live []*fwpm.Filter
		for i := range filters {
			live = append(live, twoGroups(r, l, i+1))
			p.Filters = append(p.Filters, *live[i])
		}
		var programs [2]*Program // the second has a cache
		for i, c := range []*Cache{nil, NewCache(64)} {
			slot := new(Slot)
			slot.Set(newMoody(), 1)
			var err error
			programs[i], err = Compile(p, Options{Cache: c, Lookup: func(fwpm.CalloutID) *Slot { return slot }})
			require.NoError(t, err)
		}
		plain, cached, known, asked := new(fwps.Decision), new(fwps.Decision), 0, 0
		for step := range 20_000 {
			if r.IntN(300) == 0 {
				at := r.IntN(len(live))
				came := twoGroups(r, l, filters+step)
				for i := range programs {
					next, err := programs[i].Change(Change{Gone: live[at : at+1], Came: []*fwpm.Filter{came}})
					require.NoError(t, err)
					programs[i] = next
				}
				live[at] = came
			}
			in := connection4(r.IntN(probes * 4))
			in.Layer, in.Inbound = l, l == fwpm.LayerALEAuthRecvAcceptV4
			in.Remote = netip.AddrPortFrom(in.Remote.Addr(), uint16(r.IntN(4)))
			var k question
			if k.look(programs[1].opts.Cache, programs[1], programs[1].layer(l), in, cached); k.match != nil {
				known++
			}
			programs[0].Classify(t.Context(), in, plain)
			programs[1].Classify(t.Context(), in, cached)
			require.Equal(t, plain.Steps, cached.Steps, "%s, step %d", l, step)
			require.Equal(t, []any{plain.Action, plain.Rights, plain.Deciding, plain.Faulted}, []any{cached.Action, cached.Rights, cached.Deciding, cached.Faulted})
			for _, s := range cached.Steps {
				if s.Callout != "" {
					asked++
					break
				}
			}
		}
		require.Greater(t, asked, 10_000)
		require.Greater(t, known, asked*9/10)
	}
}

// What nobody asked before costs no memory.
func TestWhatIsNotKnownAllocatesNothing(t *testing.T) {
	if race.Enabled {
		return // Its sync.Pool forgets.
	}
	const n = 500
	for _, cacheable := range []bool{false, true} {
		l := fwpm.LayerALEAuthConnectV4
		p := ported(l, fewFilters)
		p.Callouts = []fwpm.Callout{{ID: "c"}}
		p.Filters = append(p.Filters, fwpm.Filter{ID: 1000, Name: "ask", Layer: l, Action: fwp.ActionCalloutTerminating, Callout: "c"})
		slot := new(Slot)
		slot.Set(fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error {
			v.Cacheable, v.Action = cacheable, fwp.ActionPermit
			return nil
		}), 1)
		prog, err := Compile(p, Options{Cache: NewCache(1 << 16), Lookup: func(fwpm.CalloutID) *Slot { return slot }})
		require.NoError(t, err)
		d, in, port := new(fwps.Decision), connection4(1), uint16(1000)
		allocated := testing.AllocsPerRun(1, func() {
			for range n {
				in.Remote = netip.AddrPortFrom(in.Remote.Addr(), port)
				port++
				prog.Classify(t.Context(), in, d)
			}
		})
		require.Less(t, allocated, 5.0, "of %d: some have the tag of another one", n)
	}
}
