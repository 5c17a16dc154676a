package guest_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
)

// loadWith loads with events that can be waited for.
func loadWith(t *testing.T, name string, o guest.ModuleOptions) (*guest.Module, <-chan guest.Event) {
	events := make(chan guest.Event, 10)
	o.OnEvent = func(e guest.Event) { events <- e }
	return load(t, name, o), events
}

func fail(t *testing.T, m *guest.Module, times int) {
	for range times {
		_, err := ask(m, call(12))
		var trap *guest.TrapError
		require.ErrorAs(t, err, &trap)
	}
}

func TestQuarantine(t *testing.T) {
	m, events := loadWith(t, "bad", guest.ModuleOptions{Slots: 1})
	fail(t, m, 4)
	_, err := ask(m, call(1))
	require.NoError(t, err, "four failures are not too many")
	fail(t, m, 1)
	_, err = ask(m, call(1))
	var q *guest.QuarantineError
	require.ErrorAs(t, err, &q)
	require.ErrorContains(t, err, "in quarantine after 5 failures in 10s, the last: callout \"bad\" failed: wasm error: unreachable")
	e := <-events
	assert.Equal(t, guest.EventQuarantined, e.Kind)
	require.ErrorContains(t, e.Err, "unreachable")
	assert.NotEmpty(t, m.Stats().Quarantined)

	require.NoError(t, m.Reload(t.Context(), wasm(t, "bad"), nil))
	assert.Equal(t, guest.EventReloaded, (<-events).Kind)
	_, err = ask(m, call(1))
	require.NoError(t, err, "a new version ends the quarantine")
	st := m.Stats()
	assert.Empty(t, st.Quarantined)
	assert.Equal(t, guest.Stats{Decisions: 2, Slices: st.Slices, Memory: st.Memory, Failures: 5, Replaced: 5, Generation: 2, Quarantines: 1, Metrics: map[string]int64{}}, st)
}

func TestLastGoodVersionComesBack(t *testing.T) {
	m, events := loadWith(t, "good", guest.ModuleOptions{Slots: 1})
	require.NoError(t, m.Reload(t.Context(), wasm(t, "bad"), nil))
	require.Equal(t, guest.EventReloaded, (<-events).Kind)
	fail(t, m, 5)
	require.Equal(t, guest.EventQuarantined, (<-events).Kind)
	restored := <-events
	require.Equal(t, guest.EventRestored, restored.Kind)
	assert.EqualValues(t, 3, restored.Generation)
	require.ErrorContains(t, restored.Err, "unreachable")
	v, err := ask(m, call(4)) // bad.wat would not continue
	require.NoError(t, err)
	assert.Equal(t, fwp.ActionContinue, v.Action)
}

// A version that was in quarantine is not one to come back to.
func TestQuarantinedVersionDoesNotComeBack(t *testing.T) {
	m, events := loadWith(t, "bad", guest.ModuleOptions{Slots: 1})
	fail(t, m, 5)
	require.Equal(t, guest.EventQuarantined, (<-events).Kind)
	require.NoError(t, m.Reload(t.Context(), wasm(t, "bad"), nil))
	require.Equal(t, guest.EventReloaded, (<-events).Kind)
	fail(t, m, 5)
	require.Equal(t, guest.EventQuarantined, (<-events).Kind)
	require.NoError(t, m.Reload(t.Context(), wasm(t, "good"), nil))
	require.Equal(t, guest.EventReloaded, (<-events).Kind, "nothing was restored meanwhile")
}

// What a version failed at when it was live no more is not held against the next.
func TestLateFailuresAreOfTheVersionBefore(t *testing.T) {
	m, events := loadWith(t, "bad", guest.ModuleOptions{Slots: 1})
	guest.FailLate(m, 7, func() { assert.NoError(t, m.Reload(t.Context(), wasm(t, "bad"), nil)) })
	require.Equal(t, guest.EventReloaded, (<-events).Kind)
	fail(t, m, 4)
	_, err := ask(m, call(1))
	require.NoError(t, err)
	fail(t, m, 1)
	require.Equal(t, guest.EventQuarantined, (<-events).Kind)
}

// A quarantine is seen also of a version that replaced two which nobody had time to look at.
func TestEveryQuarantineIsSeen(t *testing.T) {
	m, events := loadWith(t, "good", guest.ModuleOptions{Slots: 1})
	require.NoError(t, m.Reload(t.Context(), wasm(t, "bad"), nil))
	require.Equal(t, guest.EventReloaded, (<-events).Kind)
	bad := wasm(t, "bad")
	require.NoError(t, guest.Reloads(m, func() { fail(t, m, 5) }, bad, bad))
	select {
	case e := <-events:
		require.Equal(t, guest.EventQuarantined, e.Kind)
		require.EqualValues(t, 4, e.Generation)
	case <-time.After(time.Minute):
		t.Fatal("nobody heard of it")
	}
	require.Equal(t, guest.EventRestored, (<-events).Kind)
	_, err := ask(m, call(1))
	require.NoError(t, err)
	require.NoError(t, m.Close(t.Context()))
	require.Empty(t, events, "once")
}

// Those who fail at the same time are counted one by one, and begin one quarantine.
func TestFailuresAtTheThresholdAreCounted(t *testing.T) {
	for range 20 {
		var quarantined atomic.Int32
		m := load(t, "bad", guest.Unpaced(guest.ModuleOptions{Slots: 4, MaxFailures: 40,
			OnEvent: func(e guest.Event) { quarantined.Add(1) }}))
		var wg sync.WaitGroup
		var traps, refused atomic.Uint64
		for range 8 {
			wg.Go(func() {
				for refused.Load() < 8 {
					_, err := ask(m, call(12))
					if _, q := errors.AsType[*guest.QuarantineError](err); q {
						refused.Add(1)
					} else if _, trap := errors.AsType[*guest.TrapError](err); trap {
						traps.Add(1)
					}
				}
			})
		}
		wg.Wait()
		st := m.Stats()
		require.Equal(t, traps.Load(), st.Failures)
		require.GreaterOrEqual(t, st.Failures, uint64(40))
		require.Less(t, st.Failures, uint64(40+4), "who was not yet asked is not asked any more")
		require.EqualValues(t, 1, st.Quarantines)
		require.NoError(t, m.Close(t.Context()))
		require.LessOrEqual(t, quarantined.Load(), int32(1))
	}
}

func TestContinueOnFailure(t *testing.T) {
	m := load(t, "bad", guest.ModuleOptions{Slots: 1, OnFailure: guest.FailContinue})
	for range 7 { // in quarantine too
		v, err := ask(m, call(12))
		require.NoError(t, err)
		assert.Equal(t, fwp.ActionContinue, v.Action)
		assert.Contains(t, v.Reason, "on failure continue: callout \"bad\"")
		assert.Contains(t, v.Reason, "unreachable")
	}
}

// What is wrong with a new version leaves the old one as it is.
func TestReloadRefused(t *testing.T) {
	m := load(t, "good", guest.ModuleOptions{Slots: 1})
	for module, want := range map[string]string{"imports": "does not offer", "trapping": "self-test: wasm error: unreachable", "startloop": "start"} {
		require.ErrorContains(t, m.Reload(t.Context(), wasm(t, module), nil), want)
	}
	require.ErrorContains(t, m.Reload(t.Context(), wasm(t, "good"), []byte("!")), "refused the configuration")
	_, err := ask(m, call(1))
	require.NoError(t, err)
	assert.EqualValues(t, 1, m.Stats().Generation)
}

func TestReloadLosesNoDecision(t *testing.T) {
	m := load(t, "good", guest.ModuleOptions{Slots: 2})
	var stop atomic.Bool
	var asked atomic.Uint64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				v, err := ask(m, call(4))
				if !assert.NoError(t, err) || !assert.Equal(t, fwp.ActionContinue, v.Action) {
					return
				}
				asked.Add(1)
			}
		})
	}
	for range 20 {
		require.NoError(t, m.Reload(t.Context(), wasm(t, "good"), nil))
	}
	stop.Store(true)
	wg.Wait()
	st := m.Stats()
	assert.EqualValues(t, 21, st.Generation)
	assert.Equal(t, asked.Load(), st.Decisions)
}

func TestReloadAfterClose(t *testing.T) {
	m := load(t, "good", guest.ModuleOptions{Slots: 1})
	require.NoError(t, m.Close(t.Context()))
	require.ErrorContains(t, m.Reload(t.Context(), wasm(t, "good"), nil), "closed")
	require.NoError(t, m.Close(t.Context()), "twice is once")
}

// TestFilters has notify.wat block for filters that it did not hear of.
func TestFilters(t *testing.T) {
	m := load(t, "notify", guest.ModuleOptions{Slots: 2, MaxFailures: -1})
	action := func(filter fwpm.FilterID) fwp.Action {
		c := call(3)
		c.Filter = &fwpm.Filter{ID: filter}
		v, err := ask(m, c)
		require.NoError(t, err)
		return v.Action
	}
	add := func(id fwpm.FilterID) error {
		return m.Notify(fwps.NotifyAddFilter, &fwpm.Filter{ID: id, Layer: fwpm.LayerALEConnectRedirectV4})
	}
	assert.Equal(t, fwp.ActionBlock, action(7))
	require.NoError(t, add(7))
	for range 10 { // every instance knows
		assert.Equal(t, fwp.ActionPermit, action(7))
	}
	require.ErrorContains(t, add(13), "callout_notify refused the event: code 5")
	require.ErrorContains(t, add(14), "unreachable")
	assert.Equal(t, fwp.ActionPermit, action(7), "a new instance hears of what was before it")
	require.NoError(t, m.Reload(t.Context(), wasm(t, "notify"), nil))
	assert.Equal(t, fwp.ActionPermit, action(7), "so does a new version")
	require.NoError(t, m.Notify(fwps.NotifyDeleteFilter, &fwpm.Filter{ID: 7}))
	assert.Equal(t, fwp.ActionBlock, action(7))
}

func TestFlowCookieComesBack(t *testing.T) {
	m := load(t, "notify", guest.ModuleOptions{Slots: 1})
	c := call(3)
	c.In.Layer, c.In.Flow, c.Filter = fwpm.LayerALEFlowEstablishedV4, new(fwps.Flow), &fwpm.Filter{ID: 7, Callout: "n"}
	_, err := ask(m, c)
	require.NoError(t, err)
	assert.EqualValues(t, 77, c.In.Flow.Context(c.In.Layer, "n"))
	_, err = c.In.Flow.Remove(c.In.Layer, "n")
	require.NoError(t, err)
	v, err := ask(m, call(2))
	require.NoError(t, err)
	assert.Equal(t, []byte{1, 0, 0, 0, 0, 0, 0, 0}, v.Record)
}

func TestIdleSlotsGetTime(t *testing.T) {
	m := load(t, "good", guest.Hasty(guest.ModuleOptions{Slots: 1}))
	_, err := ask(m, call(1))
	require.NoError(t, err)
	assert.Eventually(t, func() bool { return guest.Housekept(m) }, time.Minute, time.Millisecond)
}

func TestEventsHaveNames(t *testing.T) {
	assert.Equal(t, []string{"reloaded", "quarantined", "restored"},
		[]string{guest.EventReloaded.String(), guest.EventQuarantined.String(), guest.EventRestored.String()})
}
