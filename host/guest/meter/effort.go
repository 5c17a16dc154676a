package meter

import (
	"fmt"
	"strconv"
)

// wazero's compiler cannot be stopped within a function, and what it does grows with more
// than the length: with how many blocks lie one behind the other, with the locals where
// ways meet, with what lives across blocks. So every function is walked as wazero walks
// it, and what that can take at worst is added up. The weights are measured; what they
// stand for is in RATIONALE.md.
const (
	maxSeconds = 60
	maxSpace   = 512 << 20
	// maxValues is what all functions together may move. They are validated at one go.
	maxValues = 1 << 28
)

// An EffortError is a module that the compiler, which cannot be stopped within a function,
// could take all time and memory for.
type EffortError struct{ Msg string }

func (e *EffortError) Error() string { return e.Msg }

// An effort adds up what the functions of a module can take of the compiler.
type effort struct {
	values float64 // of all functions

	// Of the function that is walked:
	f             *function
	time, space   float64 // in nanoseconds, of what grows with more than the space; in bytes
	locals        float64 // that are read: each is looked for where ways meet
	here          point
	blocks        []block // that are open
	at            []int   // where in blocks the one of a label is
	around, loops float64 // loops around with their parameters, and the most of them
	meetings      float64 // what is compared where ways meet, each time that it is
}

// A point is one of the code.
type point struct {
	deep  float64 // blocks on every way to it
	stack float64 // values on the stack
	known float64 // accesses to the memory that need no check any more
	dead  bool    // no way leads to it: the compiler leaves it out
}

// A block is open.
type block struct {
	label       uint32
	op          byte
	begin, end  point
	ways, deeps float64 // that meet at its label, and the sum of how deep
}

// function panics with an *EffortError if the function can take too much.
func (e *effort) function(f *function) {
	e.walk(f)
	switch {
	case e.time > maxSeconds*1e9:
		e.refuse("%.0f s", e.time/1e9, maxSeconds)
	case e.space > maxSpace:
		e.refuse("%.0f MiB", e.space/(1<<20), maxSpace>>20)
	case e.values > maxValues:
		panic(&EffortError{fmt.Sprintf("the functions move more than %d values", maxValues)})
	}
}

func (e *effort) refuse(unit string, n, limit float64) {
	panic(&EffortError{fmt.Sprintf("function %s can take the compiler "+unit+", the limit is "+unit, e.f.name(), n, limit)})
}

// name is for people.
func (f *function) name() string {
	for _, n := range f.m.names {
		if n.index == f.index {
			return fmt.Sprintf("%d (%s)", f.index, strconv.Quote(string(n.name[:min(len(n.name), 100)])))
		}
	}
	return fmt.Sprint(f.index)
}

// read counts the locals that are read, and what the compiler has like them.
func (f *function) read() float64 {
	const memory, metering = 2, 2
	n, seen := memory+metering, make([]bool, f.locals+f.extra)
	for k := range f.code {
		if i := &f.code[k]; i.op == opLocalGet && int(i.n) < len(seen) && !seen[i.n] {
			seen[i.n] = true
			n++
		}
	}
	return float64(n)
}

// enter begins blocks, one behind the other.
func (e *effort) enter(blocks int) {
	for range blocks {
		e.here.deep++
		live := e.locals + max(0, e.here.stack) + e.here.known
		e.space += 2200 + 20*live + 32*e.here.known
		e.time += 60 * e.here.deep
	}
}

// meet is where ways meet that take values along.
func (e *effort) meet(b *block, values int) {
	n := e.locals + float64(values)
	e.meetings += n * n * b.ways
	e.space += n * (200 + 50*b.ways)
	e.time += 4000*n*b.ways + 200*b.deeps + 2*b.ways*b.ways
}

// make is so many of the compiler's instructions.
func (e *effort) make(n int) {
	e.values += float64(n)
	e.space += 500 * float64(n)
}

// compiled is how many instructions of the compiler's an instruction is, at worst: as
// measured, by what each takes of its memory.
func (i *instr) compiled() int {
	switch op := i.op; {
	case i.bulk:
		return 32
	case op == opMisc:
		return 10
	case op >= 0xa8 && op <= 0xab || op >= 0xae && op <= 0xb1: // float to integer, which may trap
		return 16
	case op >= 0x6d && op <= 0x70 || op >= 0x7f && op <= 0x82: // integer division
		return 11
	case i.accesses(), op == opVector:
		return 8
	case op >= 0x8b && op <= 0xbf, op == opCallIndirect, op == opMemoryGrow: // of floats
		return 5
	}
	return 1
}
