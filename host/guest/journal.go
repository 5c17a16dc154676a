package guest

import (
	"github.com/tetratelabs/wazero/api"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest/meter"
	"github.com/calloutd/calloutd/host/journal"
	"github.com/calloutd/calloutd/sdk/abi"
)

// answer is ask where there is a journal, or decisions are tried out.
func (i *instance) answer(j *journal.Journal, c *fwps.Call, v *fwps.Verdict) (slices uint64, err error) {
	i.journal = j
	before := i.measures()
	slices, err = i.ask(c, v)
	i.measured(before)
	i.journal = nil
	if err == nil && v.Cacheable && i.m.opts.TriesOut {
		err = i.steady(c, v)
	}
	return slices, err
}

// measures is what the guest has left of a slice of fuel, if the journal is to know
// what its answer takes.
func (i *instance) measures() (left int) {
	if i.journal == nil || !i.journal.Measures || i.budget == nil {
		return 0
	}
	return i.left()
}

// measured tells the journal what an answer took since.
func (i *instance) measured(before int) {
	if i.journal == nil || !i.journal.Measures || i.budget == nil {
		return
	}
	i.journal.Costs = append(i.journal.Costs, journal.Cost{Callout: i.m.name, Fuel: i.took(before), Of: i.m.opts.FuelSlices * meter.SliceFuel})
}

// left is what is left of the slice of fuel that was begun.
func (i *instance) left() int { return int(int32(i.mod.ExportedGlobal(meter.FuelGlobal).Get())) }

// took is the fuel that the last question took, if so much was left before.
func (i *instance) took(before int) int {
	begun := i.m.opts.FuelSlices - int(int32(i.budget.Get()))
	return before - i.left() + begun*meter.SliceFuel
}

// journaled is the clock of a request, which is now where the journal does not know
// what it was.
func (m *Module) journaled(j *journal.Journal, now int64) int64 {
	if !j.Replays() {
		j.Note(journal.Answer{Callout: m.name, Call: journal.Monotonic, Result: uint64(now)})
		return now
	}
	if a := j.Next(m.name, journal.Monotonic); a != nil {
		return int64(a.Result)
	}
	return max(0, j.Now().UnixNano())
}

// An output says where a call leaves data in the guest's memory, and how much of
// it when it returned a result.
type output func(stack []uint64, result uint64) (at, n uint32)

// through makes a call of the host, or gives the answer that it had.
func (i *instance) through(name string, f *hostFunc, mem api.Memory, stack []uint64) uint64 {
	j := i.journal
	var args [8]uint64
	copy(args[:], stack) // The functions may write their results there.
	if j.Replays() {
		if a := j.Next(i.m.name, name); a != nil {
			return f.repeat(a, mem, args[:])
		}
	}
	result := f.call(i, mem, stack)
	at, n := f.wrote(args[:], result)
	data, _ := mem.Read(at, n)
	if !j.Replays() {
		j.Note(journal.Answer{Callout: i.m.name, Call: name, Result: result, Data: append([]byte(nil), data...)})
		return result
	}
	switch name {
	case "wall":
		return uint64(j.Now().UnixNano())
	case "clock_time_get":
		if n == 8 {
			le.PutUint64(data, uint64(j.Now().UnixNano()))
		}
	case "random", "random_get":
		j.Random(data)
	}
	return result
}

// repeat gives an answer. A guest that has less room for it than it had is told so.
func (f *hostFunc) repeat(a *journal.Answer, mem api.Memory, args []uint64) uint64 {
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
