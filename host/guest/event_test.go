package guest_test

import (
	"context"
	"encoding/json"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/redirect"
)

// What notify.wat counts.
const deleted, established, redirected = 1, 256, 65536

// heard is what notify.wat counted.
func heard(t *testing.T, m *guest.Module) int {
	v, err := ask(m, call(2))
	require.NoError(t, err)
	require.Len(t, v.Record, 8)
	return int(v.Record[0]) + int(v.Record[1])<<8 + int(v.Record[2])<<16
}

// authorized is the flow of a connection that the guest permitted.
func authorized(t *testing.T, m *guest.Module) (*fwps.Flow, *fwps.Incoming) {
	c := call(1)
	c.In.Layer, c.In.Flow, c.In.EndpointID, c.Filter = fwpm.LayerALEAuthConnectV4, new(fwps.Flow), 9, &fwpm.Filter{ID: 7, Callout: "n"}
	c.Connect = nil
	_, err := ask(m, c)
	require.NoError(t, err)
	in := *c.In
	in.Layer = fwpm.LayerALEFlowEstablishedV4
	return c.In.Flow, &in
}

func TestAGuestHearsOfItsFlowsInTheirOrder(t *testing.T) {
	m := load(t, "notify", guest.ModuleOptions{Slots: 1})
	f, in := authorized(t, m)
	require.True(t, f.Observed())
	f.Establish(in)
	f.Establish(in) // Once is all.
	f.End()         // What comes after it is heard after it, though it does not wait.
	require.Equal(t, established+deleted, heard(t, m))

	f, in = authorized(t, m)
	f.Establish(in)
	require.Eventually(t, func() bool { return heard(t, m) == 2*established+deleted }, time.Minute, time.Millisecond)
}

// An answer that is refused leaves nothing behind: the instance that would know its
// cookie, and be told of the flow, is gone.
func TestARefusedAnswerIsNotHeeded(t *testing.T) {
	m := load(t, "notify", guest.ModuleOptions{Slots: 1})
	c := call(6)
	c.In.Layer, c.In.Flow, c.Filter, c.Connect = fwpm.LayerALEAuthConnectV4, new(fwps.Flow), &fwpm.Filter{ID: 7, Callout: "n"}, nil
	_, err := ask(m, c)
	require.ErrorContains(t, err, "reason is not UTF-8")
	require.False(t, c.In.Flow.Associated())
	require.False(t, c.In.Flow.Observed())
}

func TestAGuestHearsThatItsRedirectIsDone(t *testing.T) {
	m := load(t, "notify", guest.ModuleOptions{Slots: 1})
	v, err := ask(m, call(2))
	require.NoError(t, err)
	require.Equal(t, fwps.Observer(m), v.Observer)
	in := *call(2).In
	in.EndpointID = 9
	v.Observer.RedirectDone(&fwps.Event{In: &in, Filter: 7, Hop: &redirect.Hop{Record: v.Record}})
	require.Eventually(t, func() bool { return heard(t, m) == redirected }, time.Minute, time.Millisecond)
}

func TestAGuestThatDoesNotListenIsToldNothing(t *testing.T) {
	m := load(t, "good", guest.ModuleOptions{Slots: 1})
	f, _ := authorized(t, m)
	require.False(t, f.Observed())
	v, err := ask(m, call(3))
	require.NoError(t, err)
	require.True(t, v.Redirect)
	require.Nil(t, v.Observer)
}

func TestAGuestThatWantsToHearNothingMoreIsNotToldAgain(t *testing.T) {
	m := load(t, "notify", guest.ModuleOptions{Slots: 1})
	require.Error(t, m.Notify(fwps.NotifyAddFilter, &fwpm.Filter{ID: 13}))
	require.NoError(t, m.Notify(fwps.NotifyAddFilter, &fwpm.Filter{ID: 15}))
	require.NoError(t, m.Notify(fwps.NotifyAddFilter, &fwpm.Filter{ID: 13}), "it would refuse this one")
	f, _ := authorized(t, m)
	require.False(t, f.Observed())
	v, err := ask(m, call(2))
	require.NoError(t, err)
	require.Nil(t, v.Observer)
}

// The engine for scripts always has callout_notify; the script decides.
func TestAScriptHearsOfEventsIfItListens(t *testing.T) {
	const decides = `function classify() { return redirect("127.0.0.1", 8443, 77); }`
	engine, err := os.ReadFile("../../sdk/js/engine.wasm")
	require.NoError(t, err)
	rt := newRuntime(t)
	for script, listens := range map[string]bool{decides: false, decides + `function notify() {}`: true} {
		config, err := json.Marshal(map[string]string{"script": script})
		require.NoError(t, err)
		m, err := rt.Load(t.Context(), "js", engine, guest.ModuleOptions{Slots: 1, Config: config})
		require.NoError(t, err)
		require.NoError(t, m.Notify(fwps.NotifyAddFilter, &fwpm.Filter{ID: 7}))
		v, err := ask(m, call(443))
		require.NoError(t, err)
		require.True(t, v.Redirect)
		require.Equal(t, listens, v.Observer != nil, script)
		require.NoError(t, m.Close(context.Background()))
	}
}

// A connection never waits for a guest that is slow to hear: what does not fit the
// queue is dropped and counted.
func TestEventsThatDoNotFitAreCounted(t *testing.T) {
	m := load(t, "notify", guest.ModuleOptions{Slots: 1})
	in := call(1).In
	hears := guest.Deafen(m)
	for range guest.MaxNotices + 44 {
		m.FlowEstablished(&fwps.Event{In: in, Context: 77})
	}
	require.EqualValues(t, 44, m.Stats().EventsDropped)
	hears()
	require.Eventually(t, func() bool { return heard(t, m) == guest.MaxNotices*established }, time.Minute, time.Millisecond)
}

// A guest that never ends to hear of an event loses the instance, and no more.
func TestAnEndlessEventIsStopped(t *testing.T) {
	m := load(t, "notify", guest.ModuleOptions{Slots: 1})
	m.FlowEstablished(&fwps.Event{In: call(5).In})
	require.Eventually(t, func() bool { return m.Stats().Replaced == 1 }, time.Minute, time.Millisecond)
	require.Zero(t, heard(t, m))
	require.Zero(t, m.Stats().Failures, "no decision failed")
}

// A guest that fails at what is no decision is as untrustworthy as one that fails at
// one: it forgets what it counted each time. It is put in quarantine as well.
func TestFailuresOfEventsAndHousekeepingCount(t *testing.T) {
	for name, fails := range map[string]func(m *guest.Module){
		"a flow is established": func(m *guest.Module) { m.FlowEstablished(&fwps.Event{In: call(5).In}) },
		"a flow ends":           func(m *guest.Module) { m.FlowDelete(fwpm.LayerALEAuthConnectV4, "n", 66) },
		"housekeeping":          func(m *guest.Module) { _, _ = ask(m, call(8)) },
	} {
		t.Run(name, func(t *testing.T) {
			m := load(t, "notify", guest.Hasty(guest.ModuleOptions{Slots: 1}))
			require.Eventually(t, func() bool { fails(m); return m.Stats().Quarantined != "" }, time.Minute, 5*time.Millisecond)
			require.GreaterOrEqual(t, m.Stats().Replaced, uint64(5))
			require.Zero(t, m.Stats().Failures, "no decision failed")
			_, err := ask(m, call(1))
			require.ErrorContains(t, err, "in quarantine after 5 failures")
			replaced := m.Stats().Replaced
			m.FlowDelete(fwpm.LayerALEAuthConnectV4, "n", 66)
			require.Equal(t, replaced, m.Stats().Replaced, "who is in quarantine hears of nothing")
		})
	}
}

// What a module has not heard when it is closed is no failure of it.
func TestClosingWithEventsInTheQueueSaysNothing(t *testing.T) {
	var said atomic.Int32
	m := load(t, "notify", guest.ModuleOptions{Slots: 1, Logf: func(string, ...any) { said.Add(1) }})
	hears := guest.Deafen(m)
	m.FlowEstablished(&fwps.Event{In: call(1).In, Context: 77})
	go m.Close(context.WithoutCancel(t.Context()))
	require.Eventually(t, func() bool { _, err := ask(m, call(1)); return err != nil }, time.Minute, time.Millisecond)
	hears()
	require.NoError(t, m.Close(context.WithoutCancel(t.Context())))
	require.Zero(t, said.Load())
}

// Who is in quarantine is not asked about a filter, either: it may have refused it. One that
// cannot refuse any takes it.
func TestAFilterInQuarantine(t *testing.T) {
	add := func(m *guest.Module, id fwpm.FilterID) error {
		return m.Notify(fwps.NotifyAddFilter, &fwpm.Filter{ID: id})
	}
	m := load(t, "notify", guest.Unpaced(guest.ModuleOptions{Slots: 1}))
	require.NoError(t, add(m, 7))
	for range 5 {
		require.ErrorContains(t, add(m, 14), "unreachable")
	}
	failed := m.Stats()
	require.NotEmpty(t, failed.Quarantined)
	for range 3 {
		var q *guest.QuarantineError
		require.ErrorAs(t, add(m, 14), &q)
		require.ErrorAs(t, add(m, 8), &q)
	}
	require.NoError(t, m.Notify(fwps.NotifyDeleteFilter, &fwpm.Filter{ID: 7}), "its answer does not count")
	require.NoError(t, add(load(t, "good", guest.ModuleOptions{Slots: 1}), 8))
	require.Equal(t, failed.Replaced, m.Stats().Replaced, "nobody was asked")

	require.NoError(t, m.Reload(t.Context(), wasm(t, "notify"), nil))
	require.NoError(t, add(m, 9))
	for id, want := range map[fwpm.FilterID]fwp.Action{7: fwp.ActionBlock, 8: fwp.ActionBlock, 9: fwp.ActionPermit} {
		c := call(3)
		c.Filter = &fwpm.Filter{ID: id}
		v, err := ask(m, c)
		require.NoError(t, err)
		require.Equal(t, want, v.Action, "filter %d", id)
	}

	deaf := load(t, "bad", guest.Unpaced(guest.ModuleOptions{Slots: 1}))
	fail(t, deaf, 5)
	require.NotEmpty(t, deaf.Stats().Quarantined)
	require.NoError(t, add(deaf, 7))
}
