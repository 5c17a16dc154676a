package guest

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/calloutd/calloutd/sdk/abi"
)

// An Answer is what the host told a guest that is not the same each time: a time,
// random bytes, what the store holds, names.
type Answer struct {
	Callout string
	// Call is the name of the function that was called; Monotonic is the clock
	// of the request, for which the guest does not ask.
	Call   string
	Result uint64
	Data   []byte // what was written into the guest's memory
}

// Monotonic is the Call of a request's clock.
const Monotonic = "monotonic"

// A Journal is what the guests of one operation were told, in order. It serves
// one goroutine.
type Journal struct {
	Answers []Answer

	replays bool
	used    []bool
	time    time.Time
	random  *rand.ChaCha8
}

// Replay returns a journal that tells guests what they were told before. Where a
// guest asks for more, another one or other things, the time is now and what is
// random is a function of the seed, so that two replays are the same.
func Replay(answers []Answer, now time.Time, seed uint64) *Journal {
	var key [32]byte
	le.PutUint64(key[:], seed)
	return &Journal{Answers: answers, replays: true, used: make([]bool, len(answers)), time: now, random: rand.NewChaCha8(key)}
}

type journalKey struct{}

// WithJournal makes guests that were loaded with ModuleOptions.Journals write in
// j what they are told, or read it there.
func WithJournal(ctx context.Context, j *Journal) context.Context {
	return context.WithValue(ctx, journalKey{}, j)
}

func (m *Module) journal(ctx context.Context) *Journal {
	if !m.opts.Journals {
		return nil
	}
	j, _ := ctx.Value(journalKey{}).(*Journal)
	return j
}

// next is the next answer that a callout was given to a call.
func (j *Journal) next(callout, call string) *Answer {
	for k := range j.Answers {
		if a := &j.Answers[k]; !j.used[k] && a.Callout == callout && a.Call == call {
			j.used[k] = true
			return a
		}
	}
	return nil
}

// now is the clock of a request.
func (j *Journal) now(callout string, now int64) int64 {
	switch {
	case j == nil:
		return now
	case !j.replays:
		j.Answers = append(j.Answers, Answer{Callout: callout, Call: Monotonic, Result: uint64(now)})
		return now
	}
	if a := j.next(callout, Monotonic); a != nil {
		return int64(a.Result)
	}
	return j.time.UnixNano() & (1<<62 - 1)
}

// An output says where a call leaves data in the guest's memory, and how much of
// it when it returned a result.
type output func(stack []uint64, result uint64) (at, n uint32)

// through makes a call of the host, or gives the answer that it had.
func (j *Journal) through(name string, f *hostFunc, i *instance, mem api.Memory, stack []uint64) uint64 {
	var args [8]uint64
	copy(args[:], stack) // The functions may write their results there.
	if j.replays {
		if a := j.next(i.m.name, name); a != nil {
			return a.give(f, mem, args[:])
		}
	}
	result := f.call(i, mem, stack)
	at, n := f.wrote(args[:], result)
	data, _ := mem.Read(at, n)
	if !j.replays {
		j.Answers = append(j.Answers, Answer{i.m.name, name, result, append([]byte(nil), data...)})
		return result
	}
	switch name {
	case "wall":
		return uint64(j.time.UnixNano())
	case "clock_time_get":
		if n == 8 {
			le.PutUint64(data, uint64(j.time.UnixNano()))
		}
	case "random", "random_get":
		_, _ = j.random.Read(data) // It never fails.
	}
	return result
}

// give repeats an answer. A guest that has less room for it than it had is told so.
func (a *Answer) give(f *hostFunc, mem api.Memory, args []uint64) uint64 {
	at, n := f.wrote(args, a.Result)
	if n == 0 && len(a.Data) == 0 {
		return a.Result
	}
	buf, inside := mem.Read(at, n)
	if !inside || len(a.Data) > f.room(args) {
		return failed(abi.ErrTooLarge)
	}
	copy(buf, a.Data)
	return a.Result
}

// room is how much the guest has room for, where it says so.
func (f *hostFunc) room(args []uint64) int {
	switch f.params {
	case "iiii":
		return int(uint32(args[3]))
	case "ii":
		return int(uint32(args[1]))
	}
	return 8
}

// The places of data.
func nothing([]uint64, uint64) (at, n uint32) { return 0, 0 }

// filled is a buffer that is filled when the result is no error.
func filled(s []uint64, result uint64) (at, n uint32) {
	if int32(result) != 0 {
		return 0, 0
	}
	return uint32(s[0]), uint32(s[1])
}

// counted is a buffer at a parameter, of which the result says how much was used.
func counted(param int) output {
	return func(s []uint64, result uint64) (at, n uint32) { return uint32(s[param]), uint32(max(0, int32(result))) }
}

func stamped(s []uint64, result uint64) (at, n uint32) {
	if result != errnoSuccess {
		return 0, 0
	}
	return uint32(s[2]), 8
}

// varies are the calls whose answers are not the same each time.
var varies = map[string]output{
	"random": filled, "wall": nothing, "kv_get": counted(2), "kv_set": nothing, "kv_del": nothing, "dns_names": counted(0),
	"random_get": filled, "clock_time_get": stamped,
}
