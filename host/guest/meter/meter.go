// Package meter rewrites a WebAssembly module so that it cannot run for ever:
// fuel is taken at loops, at functions that recursion or size makes dangerous,
// and by bulk operations; the Go runtime is let in every few thousand units,
// and the module traps when its budget is gone.
//
// Calls nest so deep and no deeper (depth.go).
//
// Compiled guest code is not preemptible. Without this one looping guest stops
// the next garbage collection, and with it the whole process.
//
// The rewriter is a row of passes over functions (pass.go). One meters (fuel.go,
// editor.go): what may run between two payments is found by cost.go and graph.go,
// and proved by the tests. The others write code so that it is compiled better:
// jumps of Go guests (thread.go), accesses to members of structures (offset.go)
// and to static data (address.go), and conditional branches (branch.go). Data segments
// are joined (data.go).
package meter

// Names that the rewritten module exports. A module that exports one with this
// prefix itself is refused.
const (
	Prefix       = "__calloutd_"
	BudgetGlobal = Prefix + "budget" // i32: slices left; negative means trapped
	FuelGlobal   = Prefix + "fuel"   // i32: what is left of the slice that was begun
	DepthGlobal  = Prefix + "depth"  // i32: how much deeper calls may nest; negative means trapped
)

// Refill is the name of the function that traps when the budget is gone.
const Refill = Prefix + "refill"

// Version changes with what Rewrite makes of a module.
const Version = 16

const (
	// SliceFuel is how many units of fuel one slice of the budget holds: the
	// garbage collector waits no longer than four of them. A unit is about the time
	// of one simple instruction.
	SliceFuel  = 1 << sliceShift
	sliceShift = 16
	// InitialSlices is the budget of a new instance, for its start function.
	InitialSlices = 1 << 16
	// MaxTable bounds what table.grow can take from the host, in elements:
	// tables are outside the limit of the memory.
	MaxTable  = 1 << 16
	maxTables = 16
	// MaxMemoryPages is the most that a memory of a rewritten module may have: an
	// address that overflows is outside of it. One that says that it has more from
	// the start is left alone, one that says that it may grow to more may not; of
	// one that says nothing the host sees to it.
	MaxMemoryPages = 1<<16 - 1
	// maxBody bounds a function, in bytes: the compiler cannot be stopped within.
	maxBody = 1 << 20
)

// Imports lists the imports of a core module, of every kind.
func Imports(wasm []byte) (_ []Import, err error) {
	defer guard(&err)
	return parse(wasm).imports, nil
}

// Strip returns a core module without its custom sections, after it has checked
// that all lengths in it are true. Nothing else may be given to a compiler.
func Strip(wasm []byte) (_ []byte, err error) {
	defer guard(&err)
	out := []byte(header)
	for _, s := range parse(wasm).sections {
		out = vec(append(out, s.id), s.r.rest())
	}
	return out, nil
}

// Rewrite returns the metered form of a core module. Of its custom sections only
// the names of functions and the source lines are left, for traps.
// The original must have been validated; what is malformed is an *Error all the
// same. Entries are names of exported functions that get an Entry.
func Rewrite(wasm []byte, entries ...string) (_ []byte, err error) {
	defer guard(&err)
	m := parse(wasm)
	p, err := m.passes(entries)
	if err != nil {
		return nil, err
	}
	return m.write(p.all()...), nil
}

// Unmetered is what Rewrite makes of a module but for the metering, for
// comparison: nothing stops it.
func Unmetered(wasm []byte) (_ []byte, err error) {
	defer guard(&err)
	m := parse(wasm)
	return m.write(new(thread), &offset{m: m}, address{m}, new(branch)), nil
}

// passes are those of Rewrite that have something to tell afterwards.
type passes struct {
	m      *module
	thread *thread
	fuel   *fuel
	depth  *depth
}

func (m *module) passes(entries []string) (p passes, err error) {
	p = passes{m, new(thread), newFuel(m), newDepth(m)}
	for _, name := range entries {
		if err := p.fuel.addEntry(name); err != nil {
			return p, err
		}
	}
	return p, nil
}

// all are in their order. Those that look at the guest's own code come before
// those that write for the compiler.
func (p passes) all(look ...pass) []pass {
	return append(append([]pass{p.thread}, look...), &offset{m: p.m}, address{p.m}, p.fuel, p.depth, new(branch))
}
