package journal_test

import (
	"context"
	"fmt"
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

// BenchmarkNext is what it takes to repeat an answer, of few and of as many as an entry of a
// flight file may have, where a callout does not ask for those that come first.
func BenchmarkNext(b *testing.B) {
	for _, n := range []int{64, 1 << 16} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			answers := make([]journal.Answer, n)
			for i := range answers {
				answers[i] = journal.Answer{Callout: "a", Call: map[bool]string{false: "wall", true: "kv_get"}[i >= n/2]}
			}
			for b.Loop() {
				r := journal.Replay(answers, time.Time{}, 0)
				for range n / 2 {
					require.NotNil(b, r.Next("a", "kv_get"))
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n/2), "ns/answer")
		})
	}
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

func TestASingleAnswerIsRepeated(t *testing.T) {
	r := journal.Replay([]journal.Answer{{Callout: "a", Call: "wall", Result: 5}}, time.Time{}, 0)
	require.EqualValues(t, 5, r.Next("a", "wall").Result)
	require.Nil(t, r.Next("a", "wall"))
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
