package arbitrate

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/cputime"
	"github.com/calloutd/calloutd/host/internal/load"
)

// BenchmarkCached is a decision that is known, of 64 connections in turn, beside the
// same one that is not looked for: of filters alone, and of a callout that redirects.
func BenchmarkCached(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		for _, ask := range []bool{false, true} {
			g := load.New(1, fwpm.LayerALEConnectRedirectV4, n)
			p := g.Policy(n)
			ins := g.Connections(p, 64)
			for i := range ins {
				ins[i].EndpointID = 1 // no probe
			}
			slot := new(Slot)
			slot.Set(fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
				v.Action, v.Redirect, v.To, v.TargetPID, v.Cacheable = fwp.ActionPermit, true, c.Connect.Local, 7, true
				v.Record = append(v.Record, "record"...)
				return nil
			}), 1)
			if ask {
				p.Callouts = []fwpm.Callout{{ID: "c"}}
				p.Filters = append(p.Filters, fwpm.Filter{ID: fwpm.FilterID(n + 1), Name: "ask", Layer: fwpm.LayerALEConnectRedirectV4,
					Sublayer: "s0", Action: fwp.ActionCalloutTerminating, Callout: "c", Weight: fwpm.Weight{Type: fwp.Uint8, Value: 15}})
			}
			for _, cache := range []*Cache{nil, NewCache(DefaultCacheSize)} {
				prog, err := Compile(p, Options{Cache: cache, Lookup: func(fwpm.CalloutID) *Slot { return slot }})
				require.NoError(b, err)
				d := new(fwps.Decision)
				for range 3 {
					for i := range ins {
						prog.Classify(b.Context(), &ins[i], d)
						require.True(b, !ask || d.Redirected())
					}
				}
				require.Equal(b, cache != nil, d.Cached)
				b.Run(fmt.Sprintf("filters=%d/callout=%v/cache=%v", n, ask, cache != nil), func(b *testing.B) {
					runtime.LockOSThread()
					defer runtime.UnlockOSThread()
					b.ReportAllocs()
					b.ReportMetric(float64(cputime.Best(max(b.N/1000, 1), 1000, func(i int) {
						prog.Classify(context.Background(), &ins[i%len(ins)], d)
					})), "ns/op")
				})
			}
		}
	}
}
