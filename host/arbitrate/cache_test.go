package arbitrate

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/load"
)

// ported is a policy of n filters that name a port and permit.
func ported(l fwpm.LayerID, n int) *fwpm.Policy {
	p := new(fwpm.Policy)
	for i := range n {
		p.Filters = append(p.Filters, fwpm.Filter{ID: fwpm.FilterID(i + 1), Name: "f", Layer: l, Action: fwp.ActionPermit,
			Conditions: []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Value: fwp.U16(uint16(i))}}})
	}
	return p
}

// Filters that name a port alone know each other's connections by the port: nothing
// else is in the key.
func TestOneDecisionServesAllThatFiltersCannotTellApart(t *testing.T) {
	l := fwpm.LayerALEAuthConnectV4
	prog, err := Compile(ported(l, fewFilters), Options{Cache: NewCache(16)})
	require.NoError(t, err)
	d := new(fwps.Decision)
	for i := range 10 {
		in := connection4(i)
		in.AppID, in.UserID, in.ProcessID, in.EndpointID = fmt.Sprint("/bin/", i), uint32(i), uint32(i), uint64(i)
		in.Local, in.Remote = netip.AddrPortFrom(in.Local.Addr(), uint16(i)), netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 7)
		prog.Classify(t.Context(), in, d)
		require.Equal(t, i >= 2, d.Cached, "connection %d", i)
		require.Equal(t, fwpm.FilterID(8), d.Decider().Filter)
	}
}

func connection4(i int) *fwps.Incoming {
	return &fwps.Incoming{Layer: fwpm.LayerALEAuthConnectV4, Protocol: 6, AppID: "/bin/app", UserKnown: true, EndpointID: uint64(i),
		Local: netip.MustParseAddrPort("192.0.2.1:9"), Remote: netip.MustParseAddrPort("198.51.100.7:7")}
}

// The cache has room for so many and no more, whatever comes, and who comes once is
// not kept, unless the 15 bits that are remembered of it are those of another: how many
// those are depends on the hashes of the process.
func TestTheCacheIsBounded(t *testing.T) {
	const size = 64
	c := NewCache(size)
	prog, err := Compile(ported(fwpm.LayerALEAuthConnectV4, 1000), Options{Cache: c})
	require.NoError(t, err)
	d := new(fwps.Decision)
	entries := func() (n int) {
		for i := range c.sets {
			for k := range c.sets[i].entries {
				if c.sets[i].entries[k].Load() != nil {
					n++
				}
			}
		}
		return n
	}
	l := prog.layer(fwpm.LayerALEAuthConnectV4)
	ask := func(port int) (as *set, another bool) {
		in := connection4(0)
		in.Remote = netip.AddrPortFrom(in.Remote.Addr(), uint16(port))
		hash := l.fields.inputs.hash(l.version, in)
		as = c.set(hash)
		another = has(as.missed.Load(), hash) != 0
		prog.Classify(t.Context(), in, d)
		require.Equal(t, port < 1000, d.Decider() != nil)
		return as, another
	}
	taken, kept := map[*set]int{}, 0
	for port := range 3000 {
		if as, another := ask(port); another && taken[as] < setWays {
			taken[as]++
			kept++
		}
	}
	require.Equal(t, kept, entries())
	for port := range 3000 {
		for range 3 {
			ask(port)
		}
	}
	require.Equal(t, size, entries())
}

// Whoever reads while filters change sees the decision of some program that was live
// during the question, never an older one: a filter says in its name since when it is.
func TestNoKnownDecisionIsOlderThanItsQuestion(t *testing.T) {
	const readers, rounds = 4, 400
	l := fwpm.LayerALEAuthConnectV4
	p := ported(l, fewFilters)
	cache, slot := NewCache(64), new(Slot)
	prog, err := Compile(p, Options{Cache: cache, Lookup: func(fwpm.CalloutID) *Slot { return slot }})
	require.NoError(t, err)
	var live atomic.Pointer[Program]
	var since, code, ended atomic.Int64 // the code before ended is over
	var epoch fwps.Epoch
	slot.Set(fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error {
		v.Since, v.Cacheable, v.Action = epoch.Now(), true, fwp.ActionPermit
		v.Reason = fmt.Sprint(code.Load())
		return nil
	}), 1)
	live.Store(prog)
	checker, err := NewChecker(&fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}})
	require.NoError(t, err)
	var wg sync.WaitGroup
	var hits atomic.Int64
	stop := make(chan struct{})
	for range readers {
		wg.Go(func() {
			d := new(fwps.Decision)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				from, codeFrom := since.Load(), ended.Load()
				live.Load().Classify(context.Background(), connection4(i), d)
				if d.Cached {
					hits.Add(1)
				}
				for s := range d.Steps {
					var n int64
					if _, err := fmt.Sscan(d.Steps[s].Name, &n); err == nil && n < from {
						t.Errorf("filter of change %d after change %d", n, from)
					}
					if _, err := fmt.Sscan(d.Steps[s].Why, &n); err == nil && n < codeFrom {
						t.Errorf("answer of code %d after code %d", n, codeFrom)
					}
				}
			}
		})
	}
	var old *fwpm.Filter
	for n := int64(1); n <= rounds || hits.Load() < 100; n++ {
		ch := Change{Objects: checker, Came: []*fwpm.Filter{{ID: fwpm.FilterID(1000 + n), Name: fmt.Sprint(n), Layer: l, Action: fwp.ActionCalloutTerminating, Callout: "c",
			Weight: fwpm.Weight{Type: fwp.Uint64, Value: 1 << 62}}}}
		if old != nil {
			ch.Gone = []*fwpm.Filter{old}
		}
		old = ch.Came[0]
		prog, err = prog.Change(ch)
		require.NoError(t, err)
		live.Store(prog)
		since.Store(n)
		for k := range int64(3) {
			now := code.Add(1)
			epoch.End()
			ended.Store(now)
			d := new(fwps.Decision)
			for range 3 {
				prog.Classify(context.Background(), connection4(int(k)), d)
				require.Equal(t, fmt.Sprint(now), d.Steps[0].Why)
			}
		}
	}
	close(stop)
	wg.Wait()
}

// What filters decided and what callouts did is found, whichever was kept last.
func TestBothKindsOfKnownDecisionsAreFound(t *testing.T) {
	const filtersAlone, asksToo = 7, fewFilters // the port
	l := fwpm.LayerALEAuthConnectV4
	p := ported(l, fewFilters)
	p.Callouts = []fwpm.Callout{{ID: "c"}}
	p.Filters = append(p.Filters, fwpm.Filter{ID: 1000, Name: "ask", Layer: l, Action: fwp.ActionCalloutTerminating, Callout: "c",
		Conditions: []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Value: fwp.U16(asksToo)}}})
	for _, order := range [][]uint16{{filtersAlone, asksToo}, {asksToo, filtersAlone}} {
		slot, asked := new(Slot), 0
		slot.Set(fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error {
			asked++
			v.Cacheable, v.Action = true, fwp.ActionPermit
			return nil
		}), 1)
		prog, err := Compile(p, Options{Cache: NewCache(64), Lookup: func(fwpm.CalloutID) *Slot { return slot }})
		require.NoError(t, err)
		d := new(fwps.Decision)
		ask := func(port uint16) bool {
			in := connection4(1)
			in.Remote = netip.AddrPortFrom(in.Remote.Addr(), port)
			prog.Classify(t.Context(), in, d)
			return d.Cached
		}
		for _, port := range order {
			for range 2 {
				ask(port)
			}
		}
		before := asked
		for range 3 {
			for _, port := range order {
				require.True(t, ask(port), "port %d of %d", port, order)
				require.Equal(t, port == asksToo, d.Decider().Filter == 1000)
			}
		}
		require.Equal(t, before, asked)
	}
}

// Where nothing is ever found only probes look, until one finds something.
func TestALayerWhoseConnectionsAreAllDifferentIsNotLookedUp(t *testing.T) {
	c := NewCache(1024)
	prog, err := Compile(ported(fwpm.LayerALEAuthConnectV4, 100), Options{Cache: c})
	require.NoError(t, err)
	d, id := new(fwps.Decision), 0
	ask := func(port uint16) bool {
		id++
		in := connection4(id)
		in.Remote = netip.AddrPortFrom(in.Remote.Addr(), port)
		prog.Classify(t.Context(), in, d)
		return d.Cached
	}
	for port := range uint16(2 * probes * enoughVain) {
		require.False(t, ask(port))
	}
	type noted struct {
		missed  uint64
		entries [setWays]*kept
	}
	notes := func() (all []noted) {
		for i := range c.sets {
			s := &c.sets[i]
			n := noted{missed: s.missed.Load()}
			for k := range n.entries {
				n.entries[k] = s.entries[k].Load()
			}
			all = append(all, n)
		}
		return all
	}
	looked := func() bool { // A look notes what it missed, or keeps what has the tag of what was missed before.
		before := notes()
		ask(uint16(10_000 + id))
		return !slices.Equal(before, notes())
	}
	looks := 0
	for range 10 * probes {
		if looked() {
			looks++
		}
	}
	require.Equal(t, 10, looks)
	for range 3 * probes {
		ask(7)
	}
	require.True(t, ask(7))
	require.True(t, ask(7), "no probe")
}

// A program with a cache decides as one without, for policies and connections like
// those of a large site, at every size.
func TestCachedIsUncached(t *testing.T) {
	l := fwpm.LayerALEAuthConnectV4
	for _, n := range []int{100, 3000} {
		g := load.New(3, l, n)
		p := g.Policy(n)
		plain, err := Compile(p, Options{})
		require.NoError(t, err)
		cached, err := Compile(p, Options{Cache: NewCache(256)})
		require.NoError(t, err)
		ins, a, b, hits := g.Connections(p, 200), new(fwps.Decision), new(fwps.Decision), 0
		for i := range 4000 {
			in := ins[(i*i)%len(ins)]
			in.ProcessID, in.EndpointID = uint32(i), uint64(i)
			plain.Classify(t.Context(), &in, a)
			cached.Classify(t.Context(), &in, b)
			if b.Cached {
				hits++
			}
			require.Equal(t, a.Action, b.Action)
			require.Equal(t, a.Rights, b.Rights)
			require.Equal(t, a.Steps, b.Steps)
		}
		require.Greater(t, hits, 1000, "filters read a port of the local side: %d", n)
	}
}
