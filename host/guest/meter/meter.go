// Package meter rewrites a WebAssembly module so that it cannot run for ever:
// a probe at every function entry and loop header counts fuel, lets the Go
// runtime in every few thousand probes, and traps when the budget is gone.
//
// Compiled guest code is not preemptible. Without the probes one looping guest
// stops the next garbage collection, and with it the whole process.
package meter

import (
	"bytes"
	"fmt"
	"strings"
)

// Names that the rewritten module exports. A module that exports one with this
// prefix itself is refused.
const (
	Prefix       = "__calloutd_"
	BudgetGlobal = Prefix + "budget" // i32: slices left; negative means trapped
)

// SliceProbes is how many probes one slice of the budget holds.
const SliceProbes = 4096

// An Error is a module that cannot be rewritten, with the offset of the byte.
type Error struct {
	Offset int
	Msg    string
}

func (e *Error) Error() string { return fmt.Sprintf("wasm byte %d: %s", e.Offset, e.Msg) }

type reader struct {
	b        []byte
	off, end int
}

func (r *reader) fail(format string, args ...any) {
	panic(&Error{r.off, fmt.Sprintf(format, args...)})
}

func (r *reader) u8() byte {
	if r.off >= r.end {
		r.fail("unexpected end")
	}
	r.off++
	return r.b[r.off-1]
}

// leb skips or reads a LEB128 number of at most n bytes.
func (r *reader) leb(n int) uint64 {
	var v uint64
	for i := range n {
		c := r.u8()
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return v
		}
	}
	r.fail("number is too long")
	return 0
}

func (r *reader) u32() uint32 { return uint32(r.leb(5)) }

func (r *reader) take(n uint32) []byte {
	if uint64(n) > uint64(r.end-r.off) {
		r.fail("length %d goes past the end", n)
	}
	r.off += int(n)
	return r.b[r.off-int(n) : r.off]
}

func (r *reader) sub(n uint32) *reader {
	r.take(n)
	return &reader{r.b, r.off - int(n), r.off}
}

func (r *reader) rest() []byte { return r.b[r.off:r.end] }

func uleb(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func vec(b, content []byte) []byte { return append(uleb(b, uint32(len(content))), content...) }

const (
	secType, secImport, secFunc, secMemory, secGlobal, secExport, secStart, secCode = 1, 2, 3, 5, 6, 7, 8, 10
)

// order is the place of each section in a module.
var order = map[byte]int{1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 7, 8: 8, 9: 9, 12: 10, 10: 11, 11: 12}

type section struct {
	id byte
	r  *reader
}

type module struct {
	sections []section
	params   []uint32 // of each type
	funcs    []uint32 // type of each function, imports first
	imported int
	globals  uint32
	memory   bool
	fuel     uint32 // index of the fuel global; the budget is the next
	refill   uint32 // index of the refill function; charge is the next
}

// Rewrite returns the metered form of a core module. The original must have
// been validated; what is malformed is an *Error all the same.
func Rewrite(wasm []byte) (out []byte, err error) {
	defer func() {
		if e := recover(); e != nil {
			bad, ok := e.(*Error)
			if !ok {
				panic(e)
			}
			out, err = nil, bad
		}
	}()
	m := parse(wasm)
	return m.write(), nil
}

func parse(wasm []byte) *module {
	r := &reader{wasm, 0, len(wasm)}
	if !bytes.HasPrefix(wasm, []byte("\x00asm\x01\x00\x00\x00")) {
		r.fail("not a core WebAssembly module")
	}
	r.off = 8
	m, last := new(module), 0
	for r.off < r.end {
		id := r.u8()
		s := section{id, r.sub(r.u32())}
		if id != 0 {
			o, ok := order[id]
			if !ok || o <= last {
				r.fail("section %d is unknown or out of order", id)
			}
			last = o
		}
		m.read(s)
		m.sections = append(m.sections, s)
	}
	if !m.memory {
		r.fail("module has no memory")
	}
	m.fuel, m.refill = m.globals, uint32(len(m.funcs))
	return m
}

func (m *module) read(s section) {
	r := *s.r
	if s.id == 0 || s.id > secExport {
		return
	}
	switch s.id {
	case secType:
		for range r.u32() {
			if r.u8() != 0x60 {
				r.fail("not a function type")
			}
			n := r.u32()
			r.take(n)
			r.take(r.u32())
			m.params = append(m.params, n)
		}
	case secImport:
		for range r.u32() {
			r.take(r.u32())
			r.take(r.u32())
			switch k := r.u8(); k {
			case 0:
				m.funcs = append(m.funcs, r.u32())
				m.imported++
			case 1:
				r.u8()
				limits(&r)
			case 2:
				limits(&r)
				m.memory = true
			case 3:
				r.take(2)
				m.globals++
			default:
				r.fail("import kind %d is not supported", k)
			}
		}
	case secFunc:
		for range r.u32() {
			m.funcs = append(m.funcs, r.u32())
		}
	case secMemory:
		m.memory = m.memory || r.u32() > 0
	case secGlobal:
		m.globals += r.u32()
	case secExport:
		for range r.u32() {
			if name := string(r.take(r.u32())); strings.HasPrefix(name, Prefix) {
				r.fail("export name %q is reserved", name)
			}
			r.u8()
			r.u32()
		}
	}
}

func limits(r *reader) {
	f := r.u8()
	r.leb(5)
	if f&1 != 0 {
		r.leb(5)
	}
}

func (m *module) write() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	types := uint32(len(m.params))
	// i32 mutable, zero: a module that was never given fuel cannot run.
	globals := []byte{0x7f, 1, 0x41, 0, 0x0b, 0x7f, 1, 0x41, 0, 0x0b}
	exports := append(vec(nil, []byte(BudgetGlobal)), 3)
	exports = uleb(exports, m.fuel+1)
	added := map[byte]struct {
		n    uint32
		data []byte
	}{
		secType:   {2, []byte{0x60, 0, 0, 0x60, 1, 0x7f, 0}},
		secFunc:   {2, uleb(uleb(nil, types), types+1)},
		secGlobal: {2, globals},
		secExport: {1, exports},
	}
	done := map[byte]bool{}
	emit := func(id byte, old *reader) {
		a := added[id]
		n, rest := uint32(0), []byte(nil)
		if old != nil {
			r := *old
			n, rest = r.u32(), r.rest()
		}
		out = append(out, id)
		out = vec(out, append(append(uleb(nil, n+a.n), rest...), a.data...))
		done[id] = true
	}
	for _, s := range m.sections {
		if s.id == 0 {
			out = append(out, 0)
			out = vec(out, s.r.rest())
			continue
		}
		for _, id := range []byte{secType, secFunc, secGlobal, secExport} {
			if !done[id] && order[s.id] > order[id] {
				emit(id, nil)
			}
		}
		switch {
		case s.id == secCode:
			out = append(out, secCode)
			out = vec(out, m.code(s.r))
		case added[s.id].n > 0:
			emit(s.id, s.r)
		default:
			out = append(out, s.id)
			out = vec(out, s.r.rest())
		}
	}
	return out
}

func (m *module) code(s *reader) []byte {
	r := *s
	n := r.u32()
	if int(n) != len(m.funcs)-m.imported {
		r.fail("%d bodies for %d functions", n, len(m.funcs)-m.imported)
	}
	out := uleb(nil, n+2)
	for i := range int(n) {
		t := m.funcs[m.imported+i]
		if int(t) >= len(m.params) {
			r.fail("function type %d does not exist", t)
		}
		out = vec(out, m.body(r.sub(r.u32()), m.params[t]))
	}
	out = vec(out, m.refillBody())
	return vec(out, m.chargeBody())
}

func (m *module) global(b []byte, op byte, g uint32) []byte { return uleb(append(b, op), g) }

const (
	get, set = 0x23, 0x24
)

// trapIfSpent: budget < 0 -> unreachable.
func (m *module) trapIfSpent(b []byte) []byte {
	b = m.global(b, get, m.fuel+1)
	return append(b, 0x41, 0, 0x48, 0x04, 0x40, 0x00, 0x0b)
}

// refill starts a new slice. memory.grow 0 returns to Go for a moment: that is
// where a garbage collection can stop the guest.
func (m *module) refillBody() []byte {
	b := []byte{0, 0x41, 0, 0x40, 0, 0x1a}
	b = append(b, 0x41, 0x80, 0x20) // i32.const 4096
	b = m.global(b, set, m.fuel)
	b = m.global(b, get, m.fuel+1)
	b = append(b, 0x41, 1, 0x6b)
	b = m.global(b, set, m.fuel+1)
	return append(m.trapIfSpent(b), 0x0b)
}

// charge takes n probes at once, for bulk operations.
func (m *module) chargeBody() []byte {
	b := []byte{0}
	b = m.global(b, get, m.fuel+1)
	b = append(b, 0x20, 0, 0x41, 12, 0x76, 0x6b)
	b = m.global(b, set, m.fuel+1)
	b = m.global(b, get, m.fuel)
	b = append(b, 0x20, 0, 0x41, 0xff, 0x1f, 0x71, 0x6b) // i32.const 4095; and; sub
	b = m.global(b, set, m.fuel)
	return append(m.trapIfSpent(b), 0x0b)
}

func (m *module) probe(b []byte) []byte {
	b = m.global(b, get, m.fuel)
	b = append(b, 0x41, 1, 0x6b)
	b = m.global(b, set, m.fuel)
	b = m.global(b, get, m.fuel)
	b = append(b, 0x41, 0, 0x48, 0x04, 0x40, 0x10)
	return append(uleb(b, m.refill), 0x0b)
}

// body copies a function and inserts the probes. One more local holds the size
// of a bulk operation.
func (m *module) body(r *reader, params uint32) []byte {
	groups := r.u32()
	start, count := r.off, uint64(params)
	for range groups {
		count += uint64(r.u32())
		r.u8()
	}
	if count >= 50000 {
		r.fail("function has %d locals", count)
	}
	tmp := uint32(count)
	out := uleb(nil, groups+1)
	out = append(out, r.b[start:r.off]...)
	out = append(out, 1, 0x7f)
	out = m.probe(out)
	from := r.off
	for r.off < r.end {
		at := r.off
		op := r.u8()
		bulk := immediates(r, op)
		if bulk {
			out = append(out, r.b[from:at]...)
			out = uleb(append(out, 0x22), tmp)
			out = uleb(append(out, 0x20), tmp)
			out = uleb(append(out, 0x41, 6, 0x76, 0x10), m.refill+1)
			from = at
		}
		if op == 0x03 {
			out = m.probe(append(out, r.b[from:r.off]...))
			from = r.off
		}
	}
	return append(out, r.b[from:r.end]...)
}

// immediates skips what follows an opcode and reports whether the operation
// works on as many elements as the number on top of the stack.
func immediates(r *reader, op byte) (bulk bool) {
	switch {
	case op == 0x02 || op == 0x03 || op == 0x04: // block types are s33
		r.leb(5)
	case op == 0x0c || op == 0x0d || op == 0x10 || op >= 0x20 && op <= 0x26 || op == 0xd2 || op == 0x3f || op == 0x40 || op == 0xd0:
		r.leb(5)
	case op == 0x0e:
		for range uint64(r.u32()) + 1 {
			r.leb(5)
		}
	case op == 0x11:
		r.leb(5)
		r.leb(5)
	case op == 0x1c:
		for range r.u32() {
			r.u8()
		}
	case op >= 0x28 && op <= 0x3e:
		r.leb(5)
		r.leb(10)
	case op == 0x41:
		r.leb(5)
	case op == 0x42:
		r.leb(10)
	case op == 0x43:
		r.take(4)
	case op == 0x44:
		r.take(8)
	case op == 0xfc:
		return prefixed(r)
	case op == 0xfd:
		simd(r)
	case op <= 0x01 || op == 0x05 || op == 0x0b || op == 0x0f || op == 0x1a || op == 0x1b || op >= 0x45 && op <= 0xc4 || op == 0xd1:
	default:
		r.fail("opcode 0x%02x is not supported", op)
	}
	return false
}

func prefixed(r *reader) (bulk bool) {
	sub := r.u32()
	switch {
	case sub <= 7: // saturating truncation
	case sub == 8 || sub == 10 || sub == 12 || sub == 14: // init, copy
		r.leb(5)
		r.leb(5)
		return true
	case sub == 11 || sub == 15 || sub == 17: // memory.fill, table.grow, table.fill
		r.leb(5)
		return true
	case sub == 9 || sub == 13 || sub == 16: // drop, table.size
		r.leb(5)
	default:
		r.fail("opcode 0xfc %d is not supported", sub)
	}
	return false
}

func simd(r *reader) {
	sub := r.u32()
	switch {
	case sub <= 11 || sub == 92 || sub == 93:
		r.leb(5)
		r.leb(10)
	case sub == 12 || sub == 13:
		r.take(16)
	case sub >= 21 && sub <= 34:
		r.u8()
	case sub >= 84 && sub <= 91:
		r.leb(5)
		r.leb(10)
		r.u8()
	case sub > 255:
		r.fail("opcode 0xfd %d is not supported", sub)
	}
}
