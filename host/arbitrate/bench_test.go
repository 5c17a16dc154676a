package arbitrate_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// program compiles n filters for other destinations and, behind them, one filter
// that asks a Go callout.
func program(t testing.TB, l fwpm.LayerID, n int, callout bool) *arbitrate.Program {
	p := &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}}
	for i := range n {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		p.Filters = append(p.Filters, fwpm.Filter{ID: fwpm.FilterID(i + 1), Name: "other", Layer: l, Action: fwp.ActionBlock,
			Conditions: []fwpm.Condition{{Field: fwpm.ConditionIPRemoteAddress, Value: fwp.Addr(a)}, {Field: fwpm.ConditionIPProtocol, Value: fwp.U8(6)}}})
	}
	f := fwpm.Filter{ID: fwpm.FilterID(n + 1), Name: "all", Layer: l, Action: fwp.ActionPermit}
	if callout {
		f.Action, f.Callout = fwp.ActionCalloutUnknown, "c"
	}
	p.Filters = append(p.Filters, f)
	slot := &arbitrate.Slot{ID: "c"}
	slot.Set(fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		if c.Connect != nil {
			v.Redirect, v.To, v.TargetPID = true, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 8080), 7
			v.Record, v.Context = append(v.Record, "record"...), append(v.Context, "context"...)
		}
		return nil
	}), 1)
	prog, err := arbitrate.Compile(p, arbitrate.Options{Lookup: func(fwpm.CalloutID) *arbitrate.Slot { return slot }})
	require.NoError(t, err)
	return prog
}

func connection(l fwpm.LayerID) *fwps.Incoming {
	return &fwps.Incoming{Layer: l, Protocol: fwps.ProtocolTCP, AppID: "/usr/bin/curl", Local: netip.MustParseAddrPort("192.0.2.1:0"),
		Remote: netip.MustParseAddrPort("198.51.100.7:443"), UserKnown: true, UserID: 1000}
}

// No layer allocates, with and without a callout.
func TestClassifyAllocatesNothing(t *testing.T) {
	for _, l := range fwpm.Layers() {
		if l.IsV6() || !l.Offers(fwpm.ConditionIPRemoteAddress) {
			continue
		}
		for _, callout := range []bool{false, true} {
			prog, in, d := program(t, l, 3, callout), connection(l), new(fwps.Decision)
			require.Zero(t, testing.AllocsPerRun(100, func() { prog.Classify(context.Background(), in, d) }), "%s, callout %v", l, callout)
			require.Equal(t, fwp.ActionPermit, d.Action)
		}
	}
}

// BenchmarkClassify: the floor is a policy without filters.
func BenchmarkClassify(b *testing.B) {
	l := fwpm.LayerALEConnectRedirectV4
	in, d := connection(l), new(fwps.Decision)
	bench := func(name string, prog *arbitrate.Program) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				prog.Classify(context.Background(), in, d)
			}
		})
	}
	bench("floor", new(arbitrate.Program))
	bench("callout=go", program(b, l, 0, true))
	for _, n := range []int{0, 10, 100, 1000} {
		bench(fmt.Sprintf("filters=%d", n+1), program(b, l, n, false))
	}
}
