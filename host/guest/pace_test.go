package guest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
)

// A callout that is never put in quarantine is no reason for others to wait for the
// collector: who meets its failures waits, and nobody else does.
// So are those of events, and who ends a flow waits like who asks.
func TestFailuresOfEventsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, err := guest.NewRuntime(t.Context(), guest.Options{})
		require.NoError(t, err)
		m, err := rt.Load(t.Context(), "notify", wasm(t, "notify"), guest.ModuleOptions{Slots: 1, MaxFailures: -1})
		require.NoError(t, err)
		ends := func() time.Duration {
			began := time.Now()
			m.FlowDelete(fwpm.LayerALEAuthConnectV4, "n", 66)
			return time.Since(began)
		}
		for range 5 {
			assert.Zero(t, ends())
		}
		assert.Equal(t, 50*time.Millisecond, ends())
		time.Sleep(time.Second)
		began := time.Now()
		for range 8 {
			m.FlowEstablished(&fwps.Event{In: call(5).In})
		}
		for m.Stats().Replaced < 6+8 {
			time.Sleep(time.Millisecond)
		}
		assert.InDelta(t, 100*time.Millisecond, time.Since(began), float64(10*time.Millisecond), "the sixth and the seventh have waited")
		require.NoError(t, m.Close(context.Background()))
		require.NoError(t, rt.Close(context.Background()))
	})
}

func TestFailuresAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt, err := guest.NewRuntime(t.Context(), guest.Options{})
		require.NoError(t, err)
		m, err := rt.Load(t.Context(), "bad", wasm(t, "bad"), guest.ModuleOptions{Slots: 1, MaxFailures: -1})
		require.NoError(t, err)
		const trap, fine = 12, 1
		took := func(ctx context.Context, port uint16) time.Duration {
			began := time.Now()
			err := m.Classify(ctx, call(port), new(fwps.Verdict))
			require.Equal(t, port == fine, err == nil)
			return time.Since(began)
		}
		for range 5 {
			assert.Zero(t, took(t.Context(), trap), "some failures are an accident")
		}
		for range 3 {
			assert.Equal(t, 50*time.Millisecond, took(t.Context(), trap))
			assert.Zero(t, took(t.Context(), fine))
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		for range 20 {
			assert.Zero(t, took(gone, trap), "whoever went away does not wait")
		}
		assert.Equal(t, 250*time.Millisecond, took(t.Context(), trap), "nobody waits for what all others did")
		time.Sleep(time.Second)
		assert.Zero(t, took(t.Context(), trap), "it is forgotten")
		require.NoError(t, m.Close(context.Background()))
		require.NoError(t, rt.Close(context.Background()))
	})
}
