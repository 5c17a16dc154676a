package guest_test

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/journal"
	"github.com/calloutd/calloutd/sdk/abi"
)

// askWith asks the guest of host.wat with a journal.
func askWith(t *testing.T, m *guest.Module, j *journal.Journal, port uint16) *fwps.Verdict {
	t.Helper()
	v := new(fwps.Verdict)
	require.NoError(t, m.Classify(journal.With(context.Background(), j), call(port), v))
	return v
}

func TestAJournalTellsAGuestWhatItWasTold(t *testing.T) {
	o := full()
	o.Journals = true
	m := load(t, "host", o)
	const random, wall, set, get, del, names = 4, 5, 6, 7, 8, 13
	ports := []uint16{set, random, wall, get, del, names, get}
	first := new(journal.Journal)
	var want []*fwps.Verdict
	for _, p := range ports {
		want = append(want, askWith(t, m, first, p))
	}
	require.Len(t, first.Answers, 2*len(ports), "each request has a clock")
	require.Equal(t, journal.Answer{Callout: "host", Call: "kv_get", Result: 5, Data: []byte("value")}, first.Answers[7])

	m = load(t, "host", o) // What the guest itself remembers is not in a journal.
	again := journal.Replay(first.Answers, time.Time{}, 0)
	for i, p := range ports {
		got := askWith(t, m, again, p)
		require.Equal(t, want[i].Record, got.Record, "port %d", p)
		require.Equal(t, want[i].Context, got.Context, "port %d", p)
	}
}

func TestAReplayThatIsAskedForMoreIsTheSameEachTime(t *testing.T) {
	o := full()
	o.Journals = true
	m := load(t, "host", o)
	at := time.Unix(1_700_000_000, 5)
	for _, port := range []uint16{4, 5} {
		a := askWith(t, m, journal.Replay(nil, at, 7), port)
		b := askWith(t, m, journal.Replay(nil, at, 7), port)
		c := askWith(t, m, journal.Replay(nil, at.Add(time.Second), 8), port)
		require.Equal(t, a.Record, b.Record)
		require.Equal(t, a.Context, b.Context)
		require.False(t, string(a.Record) == string(c.Record) && string(a.Context) == string(c.Context), "port %d", port)
	}
}

func TestAnAnswerThatDoesNotFitIsAnErrorToTheGuest(t *testing.T) {
	o := full()
	o.Journals = true
	m := load(t, "host", o)
	long := []journal.Answer{{Callout: "host", Call: "dns_names", Result: 14, Data: []byte("a.test\x00b.test\x00")}}
	v := askWith(t, m, journal.Replay(long, time.Time{}, 0), 28) // It has room for three bytes.
	require.EqualValues(t, abi.ErrTooLarge, int64(binary.LittleEndian.Uint64(v.Record)))
}

func TestWithoutTheOptionNothingIsWrittenDown(t *testing.T) {
	m := load(t, "host", full())
	j := new(journal.Journal)
	askWith(t, m, j, 5)
	require.Empty(t, j.Answers)
}

func TestAJournalThatMeasuresHasWhatAnAnswerCost(t *testing.T) {
	o := full()
	o.Journals = true
	m := load(t, "bad", o)
	ask := func(port uint16) (journal.Cost, error) {
		j := &journal.Journal{Measures: true}
		err := m.Classify(journal.With(t.Context(), j), call(port), new(fwps.Verdict))
		require.Len(t, j.Costs, 1)
		require.Equal(t, "bad", j.Costs[0].Callout)
		return j.Costs[0], err
	}
	permitted, err := ask(1)
	require.NoError(t, err)
	require.Less(t, permitted.Fuel, permitted.Of)
	spent, err := ask(10)
	require.ErrorContains(t, err, "the fuel budget is spent")
	require.GreaterOrEqual(t, spent.Fuel, spent.Of)
	require.Equal(t, permitted.Of, spent.Of)

	j := new(journal.Journal)
	require.NoError(t, m.Classify(journal.With(t.Context(), j), call(1), new(fwps.Verdict)))
	require.Empty(t, j.Costs, "nobody asked for it")
}
