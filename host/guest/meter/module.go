package meter

import (
	"bytes"
)

const header = "\x00asm\x01\x00\x00\x00"

// Section identifiers.
const (
	secCustom, secType, secImport, secFunc, secTable, secMemory  = 0, 1, 2, 3, 4, 5
	secGlobal, secExport, secStart, secElement, secCode, secData = 6, 7, 8, 9, 10, 11
	secDataCount                                                 = 12
)

// order is the place of each section in a module.
var order = map[byte]int{1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 7, 8: 8, 9: 9, 12: 10, 10: 11, 11: 12}

// Kinds of imports and exports.
const (
	kindFunc, kindTable, kindMemory, kindGlobal = 0, 1, 2, 3
)

// An Import is something a module asks its host for.
type Import struct {
	Module, Name, Kind string
}

type section struct {
	id byte
	r  *reader
}

// A signature is a function type. Equal ones have the same number, since a
// call_indirect accepts any of them.
type signature struct {
	params, results []byte
	same            uint32
}

func (s signature) values() int { return len(s.params) + len(s.results) }

// A module is what the rewriting needs to know of one.
type module struct {
	sections  []section
	imports   []Import
	types     []signature
	funcs     []uint32 // type of each function, imports first
	imported  int
	globals   uint32
	memory    bool
	pages     uint64            // that the memory has from the start
	ownMemory bool              // it is not imported
	dataCount bool              // code can name data segments
	exported  []uint32          // functions
	functions map[string]uint32 // that are exported, by name
	refs      []uint32          // functions that a table can hold
	elements  uint32            // of all segments
	values    uint32            // of all types
	// open says that another module can change a table of this one.
	open  bool
	names []functionName
	lines lines
	added map[byte]*addition
}

func parse(wasm []byte) *module {
	r := &reader{wasm, 0, len(wasm)}
	if !bytes.HasPrefix(wasm, []byte(header)) {
		r.fail("not a core WebAssembly module")
	}
	r.off = len(header)
	m, last := &module{added: map[byte]*addition{}, functions: map[string]uint32{}}, 0
	var custom []section
	for r.off < r.end {
		id := r.u8()
		s := section{id, r.sub(r.u32())}
		if id == secCustom {
			custom = append(custom, s)
			continue
		}
		o, ok := order[id]
		if !ok || o <= last {
			r.fail("section %d is unknown or out of order", id)
		}
		last = o
		m.read(s)
		m.sections = append(m.sections, s)
	}
	for _, list := range [][]uint32{m.refs, m.exported} {
		for _, f := range list {
			m.has(r, "function", f, len(m.funcs))
		}
	}
	for _, s := range custom {
		m.readCustom(s.r)
	}
	return m
}
