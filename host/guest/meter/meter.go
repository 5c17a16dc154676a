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

const (
	// SliceProbes is how many units of fuel one slice of the budget holds: the
	// garbage collector waits no longer than that.
	SliceProbes = 4096
	sliceShift  = 12
	// InitialSlices is the budget of a new instance, for its start function.
	InitialSlices = 1 << 16
	// MaxTable bounds what table.grow can take from the host, in elements:
	// tables are outside the limit of the memory.
	MaxTable  = 1 << 16
	maxTables = 16
	// maxLocals leaves room for the local that Rewrite adds (wazero allows 50000).
	maxLocals = 49999
	// A unit of fuel pays for this many bytes of straight code, locals to
	// clear, or bytes of a bulk operation (as a shift).
	codeShift, localShift, bulkShift = 10, 6, 6
	// growCost is what leaving for the host costs.
	growCost = 8
)

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

// count reads the length of a vector. Every element has a byte at least; the
// compiler makes room for as many as the module says, so that a false length
// would take all memory of the process.
func (r *reader) count() uint32 {
	n := r.u32()
	if uint64(n) > uint64(r.end-r.off) {
		r.fail("vector of %d elements goes past the end", n)
	}
	return n
}

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

func sleb(b []byte, v int32) []byte {
	for v < -64 || v > 63 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v)&0x7f)
}

func vec(b, content []byte) []byte { return append(uleb(b, uint32(len(content))), content...) }

// Section identifiers.
const (
	secCustom, secType, secImport, secFunc, secTable, secMemory = 0, 1, 2, 3, 4, 5
	secGlobal, secExport, secElement, secCode, secData          = 6, 7, 9, 10, 11
)

// order is the place of each section in a module.
var order = map[byte]int{1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 7, 8: 8, 9: 9, 12: 10, 10: 11, 11: 12}

type section struct {
	id byte
	r  *reader
}

// An Import is something a module asks its host for.
type Import struct {
	Module, Name, Kind string
}

type module struct {
	sections []section
	imports  []Import
	params   []uint32 // of each type
	funcs    []uint32 // type of each function, imports first
	imported int
	globals  uint32
	memory   bool
	fuel     uint32 // index of the fuel global; the budget is the next
	refill   uint32 // index of the refill function; charge is the next
}

// guard turns the reader's panics into errors.
func guard(err *error) {
	switch e := recover().(type) {
	case nil:
	case *Error:
		*err = e
	default:
		panic(e)
	}
}

// Imports lists the imports of a core module, of every kind.
func Imports(wasm []byte) (_ []Import, err error) {
	defer guard(&err)
	return parse(wasm).imports, nil
}

// Strip returns a core module without its custom sections, after it has checked
// that all lengths in it are true. Nothing else may be given to a compiler.
func Strip(wasm []byte) (_ []byte, err error) {
	defer guard(&err)
	out := []byte("\x00asm\x01\x00\x00\x00")
	for _, s := range parse(wasm).sections {
		out = vec(append(out, s.id), s.r.rest())
	}
	return out, nil
}

// Rewrite returns the metered form of a core module, without custom
// sections. The original must have
// been validated; what is malformed is an *Error all the same.
func Rewrite(wasm []byte) (_ []byte, err error) {
	defer guard(&err)
	m := parse(wasm)
	if !m.memory { // The safepoint needs one.
		return nil, &Error{len(wasm), "module has no memory"}
	}
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
		if id != secCustom {
			o, ok := order[id]
			if !ok || o <= last {
				r.fail("section %d is unknown or out of order", id)
			}
			last = o
		}
		if id != secCustom { // Names of a guest are not worth decoding.
			m.read(s)
			m.sections = append(m.sections, s)
		}
	}
	m.fuel, m.refill = m.globals, uint32(len(m.funcs))
	return m
}

// read takes from a section what the rewriting needs. It works on a copy of the
// section's reader: write reads it again.
func (m *module) read(s section) {
	r := *s.r
	switch s.id {
	case secType:
		m.readTypes(&r)
	case secImport:
		for range r.count() {
			m.readImport(&r)
		}
	case secFunc:
		for range r.count() {
			m.funcs = append(m.funcs, r.u32())
		}
	case secMemory:
		m.memory = m.memory || r.count() > 0
	case secGlobal:
		m.globals += r.count()
	case secExport:
		readExports(&r)
	case secTable:
		r.count()
	case secElement:
		for range r.count() {
			readElement(&r)
		}
	case secCode:
		for range r.count() {
			readLocals(r.sub(r.u32()))
		}
	case secData:
		for range r.count() {
			readData(&r)
		}
	}
}

func (m *module) readTypes(r *reader) {
	for range r.count() {
		if r.u8() != 0x60 {
			r.fail("not a function type")
		}
		n := r.u32()
		r.take(n)
		r.take(r.u32())
		m.params = append(m.params, n)
	}
}

func (m *module) readImport(r *reader) {
	i := Import{Module: string(r.take(r.u32())), Name: string(r.take(r.u32()))}
	switch k := r.u8(); k {
	case 0:
		i.Kind = "function"
		m.funcs = append(m.funcs, r.u32())
		m.imported++
	case 1:
		i.Kind = "table"
		r.u8()
		limits(r)
	case 2:
		i.Kind = "memory"
		limits(r)
		m.memory = true
	case 3:
		i.Kind = "global"
		r.take(2)
		m.globals++
	default:
		r.fail("import kind %d is not supported", k)
	}
	m.imports = append(m.imports, i)
}

func readExports(r *reader) {
	for range r.count() {
		if name := string(r.take(r.u32())); strings.HasPrefix(name, Prefix) {
			r.fail("export name %q is reserved", name)
		}
		r.u8()
		r.u32()
	}
}

// readElement reads a segment; the low bits of its flags are: not active, has
// a table or is declarative, has expressions in place of indices.
func readElement(r *reader) {
	f := r.u32()
	if f > 7 {
		r.fail("element segment with flags %d is not supported", f)
	}
	if f&1 == 0 {
		if f&2 != 0 {
			r.u32()
		}
		constant(r)
	}
	if f&3 != 0 {
		r.u8()
	}
	for range r.count() {
		if f&4 != 0 {
			constant(r)
		} else {
			r.u32()
		}
	}
}

func readData(r *reader) {
	f := r.u32()
	if f > 2 {
		r.fail("data segment with flags %d is not supported", f)
	}
	if f == 2 {
		r.u32()
	}
	if f != 1 {
		constant(r)
	}
	r.take(r.u32())
}

// readLocals returns how many locals a function declares.
func readLocals(r *reader) (groups uint32, n uint64) {
	groups = r.count()
	for range groups {
		n += uint64(r.u32())
		r.u8()
	}
	if n > maxLocals {
		r.fail("function has %d locals, the limit is %d", n, maxLocals)
	}
	return groups, n
}

// constant skips a constant expression.
func constant(r *reader) {
	for {
		op := r.u8()
		if op == opEnd {
			return
		}
		immediates(r, op)
	}
}

// limits reads a minimum and, when there is one, a maximum.
func limits(r *reader) (low, high uint32, bounded bool) {
	f := r.u8()
	if f > 1 {
		r.fail("limits with flags %#x are not supported", f)
	}
	low = r.u32()
	if f == 1 {
		high = r.u32()
	}
	return low, high, f == 1
}

// an addition is what Rewrite appends to a section that is a vector.
type addition struct {
	n    uint32
	data []byte
}

// additions holds two globals, two functions with their types, and one export.
// Everything is appended, so that no index of the guest's own changes.
func (m *module) additions() map[byte]addition {
	types := uint32(len(m.params))
	globals := []byte{0x7f, 1, 0x41, 0, 0x0b, 0x7f, 1, 0x41}
	globals = append(sleb(globals, InitialSlices), 0x0b)
	return map[byte]addition{
		secType:   {2, []byte{0x60, 0, 0, 0x60, 1, 0x7f, 0}},
		secFunc:   {2, uleb(uleb(nil, types), types+1)},
		secGlobal: {2, globals},
		secExport: {1, uleb(append(vec(nil, []byte(BudgetGlobal)), 3), m.fuel+1)},
		secCode:   {2, vec(vec(nil, m.refillBody()), m.chargeBody())},
	}
}

// added lists the sections that additions has, in their order.
var added = []byte{secType, secFunc, secGlobal, secExport, secCode}

func (m *module) write() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	add, todo := m.additions(), added
	emit := func(id byte, n uint32, content []byte) {
		body := append(uleb(nil, n+add[id].n), content...)
		out = vec(append(out, id), append(body, add[id].data...))
		todo = todo[1:]
	}
	for _, s := range m.sections {
		for len(todo) > 0 && order[todo[0]] < order[s.id] {
			emit(todo[0], 0, m.missing(todo[0], s.r))
		}
		r := *s.r
		switch {
		case s.id == secCode:
			n := r.u32()
			emit(secCode, n, m.code(&r, n))
		case s.id == secTable:
			out = vec(append(out, secTable), tables(&r))
		case add[s.id].n > 0:
			n := r.u32()
			emit(s.id, n, r.rest())
		default:
			out = vec(append(out, s.id), r.rest())
		}
	}
	for len(todo) > 0 {
		emit(todo[0], 0, m.missing(todo[0], nil))
	}
	return out
}

// missing is the content of a section the module does not have: nothing, unless
// there are functions without bodies.
func (m *module) missing(id byte, at *reader) []byte {
	if id == secCode && len(m.funcs) > m.imported {
		e := &Error{Msg: fmt.Sprintf("%d functions have no bodies", len(m.funcs)-m.imported)}
		if at != nil {
			e.Offset = at.off
		}
		panic(e)
	}
	return nil
}

// tables copies the table section and bounds every table.
func tables(r *reader) []byte {
	n := r.u32()
	if n > maxTables {
		r.fail("%d tables are over the limit of %d", n, maxTables)
	}
	out := uleb(nil, n)
	for range n {
		out = append(out, r.u8())
		low, high, bounded := limits(r)
		if low > MaxTable {
			r.fail("table of %d elements is over the limit of %d", low, MaxTable)
		}
		if !bounded || high > MaxTable {
			high = MaxTable
		}
		out = uleb(uleb(append(out, 1), low), high)
	}
	return append(out, r.rest()...)
}

// code copies the n function bodies with their probes.
func (m *module) code(r *reader, n uint32) []byte {
	if int(n) != len(m.funcs)-m.imported {
		r.fail("%d bodies for %d functions", n, len(m.funcs)-m.imported)
	}
	var out []byte
	for _, t := range m.funcs[m.imported:] {
		if int(t) >= len(m.params) {
			r.fail("function type %d does not exist", t)
		}
		out = vec(out, m.body(r.sub(r.u32()), m.params[t]))
	}
	return append(out, r.rest()...)
}

func (m *module) global(b []byte, op byte, g uint32) []byte { return uleb(append(b, op), g) }

// Opcodes that Rewrite writes.
const (
	opUnreachable, opLoop, opIf, opEnd, opCall, opDrop = 0x00, 0x03, 0x04, 0x0b, 0x10, 0x1a
	localGet, localTee, get, set                       = 0x20, 0x22, 0x23, 0x24
	memoryGrow, i32Const                               = 0x40, 0x41
	i32LtS, i32Add, i32Sub, i32And, i32ShrS, i32ShrU   = 0x48, 0x6a, 0x6b, 0x71, 0x75, 0x76
	empty                                              = 0x40
)

// refillBody starts a new slice. Fuel is negative here: its whole slices are
// taken from the budget and the rest stays, so that no debt is forgiven.
// memory.grow 0 returns to Go for a moment: that is where a garbage collection
// can stop the guest.
func (m *module) refillBody() []byte {
	b := []byte{0, i32Const, 0, memoryGrow, 0, opDrop}
	b = m.global(b, get, m.fuel+1)
	b = m.global(b, get, m.fuel)
	b = append(b, i32Const, sliceShift, i32ShrS, i32Add)
	b = m.global(b, set, m.fuel+1)
	b = m.global(b, get, m.fuel)
	b = append(sleb(append(b, i32Const), SliceProbes-1), i32And)
	b = m.global(b, set, m.fuel)
	b = m.global(b, get, m.fuel+1)
	b = append(b, i32Const, 0, i32LtS, opIf, empty, opUnreachable, opEnd)
	return append(b, opEnd)
}

// chargeBody takes its argument from the fuel. The argument is at most 2^26, so
// nothing overflows.
func (m *module) chargeBody() []byte {
	b := m.global([]byte{0}, get, m.fuel)
	b = append(b, localGet, 0, i32Sub)
	return append(m.spend(b), opEnd)
}

// spend sets fuel to the number on the stack and refills it when it is gone.
func (m *module) spend(b []byte) []byte {
	b = m.global(b, set, m.fuel)
	b = m.global(b, get, m.fuel)
	b = append(b, i32Const, 0, i32LtS, opIf, empty, opCall)
	return append(uleb(b, m.refill), opEnd)
}

// probe takes a cost that fix fills in later. It returns where.
func (m *module) probe(b []byte) ([]byte, int) {
	b = append(m.global(b, get, m.fuel), i32Const)
	at := len(b)
	b = append(b, 0x80, 0x80, 0x00, i32Sub)
	return m.spend(b), at
}

// fix writes the cost of a probe, which pays for n bytes of code: three bytes
// hold more than a function of the largest size costs.
func fix(b []byte, at, n, extra int) {
	c := min(1+n>>codeShift+extra, 1<<20-1)
	b[at], b[at+1], b[at+2] = byte(c)|0x80, byte(c>>7)|0x80, byte(c>>14)
}

// A block is an open control instruction, with its probe if it is a loop.
type block struct {
	start, probe int
}

// A body in the making.
type writer struct {
	m    *module
	r    *reader
	out  []byte
	from int    // what is before this offset is copied
	tmp  uint32 // the added local: the size of a bulk operation
	open []block
}

// body copies a function and inserts the probes.
func (m *module) body(r *reader, params uint32) []byte {
	w := &writer{m: m, r: r}
	at := *r
	at.count()
	start := at.off
	groups, count := readLocals(r)
	if count += uint64(params); count > maxLocals {
		r.fail("function has %d locals, the limit is %d", count, maxLocals)
	}
	w.tmp = uint32(count)
	w.out = append(uleb(nil, groups+1), r.b[start:r.off]...)
	w.out = append(w.out, 1, 0x7f)
	w.from = r.off
	var entry int
	w.out, entry = m.probe(w.out)
	w.open = []block{{r.off, -1}}
	for r.off < r.end {
		w.instruction()
	}
	if len(w.open) != 0 {
		r.fail("function does not end")
	}
	fix(w.out, entry, r.end-start, int(count)>>localShift)
	return append(w.out, r.b[w.from:r.end]...)
}

func (w *writer) instruction() {
	at := w.r.off
	op := w.r.u8()
	if len(w.open) == 0 {
		w.r.fail("code after the end of the function")
	}
	bulk := immediates(w.r, op)
	switch {
	case bulk:
		w.copy(at)
		w.out = uleb(append(w.out, localTee), w.tmp)
		w.out = uleb(append(w.out, localGet), w.tmp)
		w.out = append(w.out, i32Const, bulkShift, i32ShrU)
		w.charge()
	case op == memoryGrow:
		w.copy(at)
		w.out = append(w.out, i32Const, growCost)
		w.charge()
	case op >= 0x02 && op <= opIf:
		w.enter(op)
	case op == opEnd:
		w.leave()
	}
}

func (w *writer) copy(to int) {
	w.out = append(w.out, w.r.b[w.from:to]...)
	w.from = to
}

func (w *writer) charge() { w.out = uleb(append(w.out, opCall), w.m.refill+1) }

func (w *writer) enter(op byte) {
	b := block{w.r.off, -1}
	if op == opLoop {
		w.copy(w.r.off)
		w.out, b.probe = w.m.probe(w.out)
	}
	w.open = append(w.open, b)
}

// leave closes a block. A round of a loop runs its bytes once at most, apart
// from the loops in it, which have probes of their own.
func (w *writer) leave() {
	b := w.open[len(w.open)-1]
	w.open = w.open[:len(w.open)-1]
	if b.probe >= 0 {
		fix(w.out, b.probe, w.r.off-b.start, 0)
	}
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
		for range r.count() {
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
	case sub > 255 || strings.IndexByte(reserved, byte(sub)) >= 0:
		r.fail("opcode 0xfd %d is not supported", sub)
	}
}

// reserved are the vector opcodes that mean nothing yet.
const reserved = "\x9a\xa2\xa5\xa6\xaf\xb0\xb2\xb3\xb4\xbb\xc2\xc5\xc6\xcf\xd0\xd2\xd3\xd4\xe2\xee"
