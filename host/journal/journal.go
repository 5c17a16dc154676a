// Package journal keeps what callouts were told that is not the same each time, so
// that a decision can be made again as it was made.
package journal

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"time"
)

// An Answer is what the host told a callout: a time, random bytes, what its store
// holds, names.
type Answer struct {
	Callout string
	// Call is the name of the function that was called; Monotonic is the clock
	// of the request, for which the callout does not ask.
	Call   string
	Result uint64
	Data   []byte // what was written into the callout's memory
}

// A Cost is what an answer of a callout took of its fuel, and what it may take.
type Cost struct {
	Callout  string
	Fuel, Of int
}

// Monotonic is the Call of a request's clock.
const Monotonic = "monotonic"

// A Journal is what the callouts of one operation were told, in order. It serves
// one goroutine.
type Journal struct {
	Answers []Answer
	// Measures asks for Costs: one for each time that a callout was asked, in order,
	// also where it failed.
	Measures bool
	Costs    []Cost

	replays bool
	left    map[question][]int // what was not repeated yet: indexes of Answers
	time    time.Time
	random  *rand.ChaCha8
	seed    uint64
}

// Replay returns a journal that tells callouts what they were told before. Where
// one asks for more, or for other things, the time is now and what is random is a
// function of the seed, so that two replays are the same.
func Replay(answers []Answer, now time.Time, seed uint64) *Journal {
	j := &Journal{Answers: answers, replays: true, time: now, seed: seed}
	if len(answers) > 0 {
		j.left = map[question][]int{}
	}
	for i := range answers { // A record of others' may have many: none is looked for among all.
		q := question{answers[i].Callout, answers[i].Call}
		j.left[q] = append(j.left[q], i)
	}
	return j
}

type question struct{ callout, call string }

type key struct{}

// With makes callouts that keep journals write in j what they are told, or read it
// there.
func With(ctx context.Context, j *Journal) context.Context { return context.WithValue(ctx, key{}, j) }

// From is the journal of a context, nil if it has none.
func From(ctx context.Context) *Journal {
	j, _ := ctx.Value(key{}).(*Journal)
	return j
}

// Replays reports whether answers are repeated and not written down.
func (j *Journal) Replays() bool { return j.replays }

// Note writes an answer down.
func (j *Journal) Note(a Answer) { j.Answers = append(j.Answers, a) }

// Next is the next answer that a callout was given to a call, nil if there is none, as
// where nothing is repeated.
func (j *Journal) Next(callout, call string) *Answer {
	q := question{callout, call}
	is := j.left[q]
	if len(is) == 0 {
		return nil
	}
	j.left[q] = is[1:]
	return &j.Answers[is[0]]
}

// Now is the time of a replay.
func (j *Journal) Now() time.Time { return j.time }

// Random fills b with what a replay has in the place of random bytes.
func (j *Journal) Random(b []byte) {
	if j.random == nil {
		var seed [32]byte
		binary.LittleEndian.PutUint64(seed[:], j.seed)
		j.random = rand.NewChaCha8(seed)
	}
	_, _ = j.random.Read(b) // It never fails.
}
