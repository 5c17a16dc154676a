package guest_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/redirect"
)

func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops items at random under the race detector")
	}
	m := load(t, "good", guest.ModuleOptions{Slots: 2})
	for port := uint16(1); port <= 7; port++ {
		c := call(port)
		c.Hop = &redirect.Hop{Record: []byte("record"), Context: []byte("context")}
		assert.Zero(t, allocations(t, m, c), fmt.Sprint(port))
	}
}

// allocations of one decision.
func allocations(t *testing.T, m *guest.Module, c *fwps.Call) float64 {
	v := new(fwps.Verdict)
	return testing.AllocsPerRun(500, func() {
		v.Reset()
		if err := m.Classify(context.Background(), c, v); err != nil {
			t.Error(err)
		}
	})
}

// BenchmarkClassify compares a decision with what it cannot be faster than: a
// closure in Go, and a call of an export that does nothing.
func BenchmarkClassify(b *testing.B) {
	b.Run("native", func(b *testing.B) {
		f := fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error {
			v.Action = fwp.ActionPermit
			return nil
		})
		classify(b, f, 1)
	})
	b.Run("floor", func(b *testing.B) {
		rt := wazero.NewRuntime(b.Context())
		defer rt.Close(context.Background())
		_, err := rt.NewHostModuleBuilder("wasi_snapshot_preview1").
			NewFunctionBuilder().WithFunc(func(uint32) {}).Export("proc_exit").
			NewFunctionBuilder().WithFunc(func(uint32, uint32) uint32 { return 0 }).Export("random_get").
			Instantiate(b.Context())
		require.NoError(b, err)
		mod, err := rt.Instantiate(b.Context(), wasm(b, "bad"))
		require.NoError(b, err)
		f, stack := mod.ExportedFunction("noop"), make([]uint64, 1)
		b.ReportAllocs()
		for b.Loop() {
			if err := f.CallWithStack(context.Background(), stack); err != nil {
				b.Fatal(err)
			}
		}
	})
	m := load(b, "good", guest.ModuleOptions{})
	b.Run("guarded/permit", func(b *testing.B) { classify(b, m, 1) })
	b.Run("guarded/redirect", func(b *testing.B) { classify(b, m, 3) })
	b.Run("guarded/parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			c, v := call(1), new(fwps.Verdict)
			for pb.Next() {
				v.Reset()
				if err := m.Classify(context.Background(), c, v); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

func classify(b *testing.B, f fwps.Callout, port uint16) {
	c, v := call(port), new(fwps.Verdict)
	b.ReportAllocs()
	for b.Loop() {
		v.Reset()
		if err := f.Classify(context.Background(), c, v); err != nil {
			b.Fatal(err)
		}
	}
}
