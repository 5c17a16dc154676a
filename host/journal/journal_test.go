package journal_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/journal"
)

func TestAnswersAreRepeatedInOrderForEachCalloutAndCall(t *testing.T) {
	var j journal.Journal
	for i, a := range []journal.Answer{{Callout: "a", Call: "wall"}, {Callout: "b", Call: "wall"}, {Callout: "a", Call: "kv_get"}, {Callout: "a", Call: "wall"}} {
		a.Result = uint64(i)
		j.Note(a)
	}
	require.False(t, j.Replays())
	r := journal.Replay(j.Answers, time.Unix(5, 0), 0)
	require.True(t, r.Replays())
	require.Equal(t, time.Unix(5, 0), r.Now())
	require.EqualValues(t, 2, r.Next("a", "kv_get").Result)
	require.EqualValues(t, 0, r.Next("a", "wall").Result)
	require.EqualValues(t, 3, r.Next("a", "wall").Result)
	require.Nil(t, r.Next("a", "wall"), "there are no more")
	require.EqualValues(t, 1, r.Next("b", "wall").Result)
}

// A flight file that somebody else made can have an entry with as many answers as it may: they
// are repeated in milliseconds, also where a callout does not ask for what comes first.
func TestManyAnswersAreRepeatedFast(t *testing.T) {
	answers := make([]journal.Answer, 1<<16)
	for i := range answers {
		answers[i] = journal.Answer{Callout: "a", Call: map[bool]string{false: "wall", true: "kv_get"}[i >= len(answers)/2]}
	}
	r, began := journal.Replay(answers, time.Time{}, 0), time.Now()
	for range len(answers) / 2 {
		require.NotNil(t, r.Next("a", "kv_get"))
	}
	require.Nil(t, r.Next("a", "kv_get"))
	require.Less(t, time.Since(began), 3*time.Second)
}

func TestRandomBytesOfAReplayAreAFunctionOfItsSeed(t *testing.T) {
	bytes := func(seed uint64) string {
		var b [16]byte
		journal.Replay(nil, time.Time{}, seed).Random(b[:])
		return string(b[:])
	}
	require.Equal(t, bytes(1), bytes(1))
	require.NotEqual(t, bytes(1), bytes(2))
}

func TestAJournalThatDoesNotReplayHasNoAnswers(t *testing.T) {
	j := new(journal.Journal)
	j.Note(journal.Answer{Callout: "a", Call: "wall"})
	require.Nil(t, j.Next("a", "wall"))
}

func TestAContextWithoutAJournalHasNone(t *testing.T) {
	require.Nil(t, journal.From(context.Background()))
	j := new(journal.Journal)
	require.Same(t, j, journal.From(journal.With(context.Background(), j)))
}
