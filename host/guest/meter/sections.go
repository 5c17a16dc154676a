package meter

import (
	"slices"
	"strings"
)

// readCustom keeps what says where a trap was.
func (m *module) readCustom(r *reader) {
	switch name := string(r.take(r.u32())); name {
	case "name":
		m.readNames(r)
	default:
		m.lines.add(name, r.rest())
	}
}

// read takes from a section what the rewriting needs. It works on a copy of the
// section's reader: write reads it again.
func (m *module) read(s section) {
	r := *s.r
	if k, limited := most[s.id]; limited {
		n := r
		k.bound(&n, n.count())
	}
	switch s.id {
	case secType:
		m.readTypes(&r)
	case secImport:
		each(&r, m.readImport)
	case secFunc:
		each(&r, m.readFunc)
	case secMemory:
		each(&r, m.readMemory)
		m.ownMemory = m.memory
	case secGlobal:
		each(&r, m.readGlobal)
	case secExport:
		each(&r, m.readExport)
	case secTable:
		r.count()
	case secElement:
		each(&r, m.readElement)
	case secCode:
		m.lines.code = r.off
		each(&r, func(r *reader) { readLocals(r.sub(r.u32())) })
	case secStart:
		m.has(&r, "function", r.u32(), len(m.funcs))
	case secData:
		each(&r, func(r *reader) { m.readData(r) })
	case secDataCount:
		m.dataCount = true
	}
}

// A kind is something of which a module has no more than so many: the host keeps all of
// them beside the memory, many times as large as the module says them, most for each instance.
type kind struct {
	what string
	most uint32
}

var (
	elements = kind{"elements of tables", 1 << 17}
	values   = kind{"parameters and results of types", 1 << 17}
	most     = map[byte]kind{
		secType:    {"types", 1 << 14},
		secImport:  {"imports", 1 << 14},
		secFunc:    {"functions", 1 << 17},
		secGlobal:  {"globals", 1 << 14},
		secExport:  {"exports", 1 << 16},
		secElement: elements,
		secData:    {"data segments", 1 << 17}, // cmd/link/internal/wasm makes 100,000 at most.
	}
)

func (k kind) bound(r *reader, n uint32) {
	if n > k.most {
		r.over("%d %s are over the limit of %d", n, k.what, k.most)
	}
}

func (m *module) readFunc(r *reader) {
	t := r.u32()
	m.has(r, "type", t, len(m.types))
	m.funcs = append(m.funcs, t)
}

func (m *module) readMemory(r *reader) {
	low, _, _ := limits(r)
	m.memory, m.pages = true, uint64(low)
}

func each(r *reader, read func(*reader)) {
	for range r.count() {
		read(r)
	}
}

func (m *module) readTypes(r *reader) {
	same := map[string]uint32{}
	for i := range r.count() {
		if r.u8() != 0x60 {
			r.fail("not a function type")
		}
		params, results := r.take(r.u32()), r.take(r.u32())
		// By what it says: its lengths can be written in more bytes than one.
		text := string(params) + ">" + string(results)
		if _, known := same[text]; !known {
			same[text] = i
		}
		m.values += uint32(len(params) + len(results))
		values.bound(r, m.values)
		m.types = append(m.types, signature{params, results, same[text]})
	}
}

func (m *module) readImport(r *reader) {
	i := Import{Module: string(r.take(r.u32())), Name: string(r.take(r.u32()))}
	switch k := r.u8(); k {
	case kindFunc:
		i.Kind = "function"
		m.readFunc(r)
		m.imported++
	case kindTable:
		i.Kind = "table"
		r.u8()
		limits(r)
		m.open = true
	case kindMemory:
		i.Kind = "memory"
		m.readMemory(r)
	case kindGlobal:
		i.Kind = "global"
		r.take(2)
		m.globals++
	default:
		r.fail("import kind %d is not supported", k)
	}
	m.imports = append(m.imports, i)
}

func (m *module) readGlobal(r *reader) {
	r.take(2)
	m.constant(r)
	m.globals++
}

func (m *module) readExport(r *reader) {
	name := string(r.take(r.u32()))
	if strings.HasPrefix(name, Prefix) {
		r.fail("export name %q is reserved", name)
	}
	switch kind, n := r.u8(), r.u32(); kind {
	case kindFunc:
		m.exported = append(m.exported, n)
		m.functions[name] = n
	case kindTable:
		m.open = true
	case kindMemory:
		if !m.memory {
			r.fail("module has no memory")
		}
	case kindGlobal:
		m.has(r, "global", n, int(m.globals))
	}
}

// readElement reads a segment; the low bits of its flags are: not active, has
// a table or is declarative, has expressions in place of indices.
func (m *module) readElement(r *reader) {
	f := r.u32()
	if f > 7 {
		r.fail("element segment with flags %d is not supported", f)
	}
	if f&1 == 0 {
		if f&2 != 0 {
			r.u32()
		}
		m.constant(r)
	}
	if f&3 != 0 {
		r.u8()
	}
	n := r.count()
	m.elements += n
	elements.bound(r, m.elements)
	for range n {
		if f&4 != 0 {
			m.constant(r)
		} else {
			m.refs = append(m.refs, r.u32())
		}
	}
}

func (m *module) readData(r *reader) (s segment) {
	from := r.off
	f := r.u32()
	if f > 2 {
		r.fail("data segment with flags %d is not supported", f)
	}
	if f == 2 {
		r.u32()
	}
	if f != 1 {
		var at uint32
		at, s.fixed = m.constant(r)
		s.at = uint64(at)
		if !m.memory {
			r.fail("module has no memory")
		}
	}
	s.head = r.b[from:r.off]
	s.data = slices.Clip(r.take(r.u32()))
	return s
}

// maxLocals leaves room for the locals that passes add (wazero allows 50000).
const maxLocals = 50000 - 8 - maxBases

// readLocals returns how many locals a function declares.
func readLocals(r *reader) (groups uint32, n uint64) {
	groups = r.count()
	for range groups {
		n += uint64(r.u32())
		r.u8()
	}
	if n > maxLocals {
		r.over("function has %d locals, the limit is %d", n, maxLocals)
	}
	return groups, n
}

// constant reads a constant expression, whose value is fixed if it is a number.
func (m *module) constant(r *reader) (value uint32, fixed bool) {
	for n := 0; ; n++ {
		i := r.instr(nil)
		switch i.op {
		case opEnd:
			return value, fixed
		case opRefFunc:
			m.refs = append(m.refs, i.n)
		case opGlobalGet:
			m.has(r, "global", i.n, int(m.globals))
		}
		value, fixed = i.n, n == 0 && i.op == opI32Const
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
