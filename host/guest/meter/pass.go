package meter

import "fmt"

// A pass changes functions one by one. Callees come before their callers, except
// where functions call each other in a circle.
type pass interface {
	function(f *function)
}

// An addition is what is appended to a section that is a vector. Everything new
// is appended, so that no index of the guest's own changes.
type addition struct {
	n    uint32
	data []byte
}

func (m *module) add(section byte, item []byte) uint32 {
	a := m.added[section]
	if a == nil {
		a = new(addition)
		m.added[section] = a
	}
	a.n++
	a.data = append(a.data, item...)
	return a.n - 1
}

// addGlobal adds a mutable i32.
func (m *module) addGlobal(value int32) uint32 {
	item := append(sleb([]byte{typeI32, 1, opI32Const}, value), opEnd)
	return m.globals + m.add(secGlobal, item)
}

// addFunc adds a function of a type; code begins with its locals.
func (m *module) addFunc(signature, code []byte) uint32 {
	t := uint32(len(m.types)) + m.add(secType, signature)
	m.add(secCode, vec(nil, code))
	return uint32(len(m.funcs)) + m.add(secFunc, uleb(nil, t))
}

func (m *module) addExport(name string, kind byte, index uint32) {
	m.add(secExport, uleb(append(vec(nil, []byte(name)), kind), index))
}

// needMemory gives a module without a memory an empty one.
func (m *module) needMemory() {
	if !m.memory {
		m.add(secMemory, []byte{1, 0, 0})
	}
}

// appended lists the sections that additions go to, in their order.
var appended = []byte{secType, secFunc, secMemory, secGlobal, secExport, secCode}

// write returns the module with what the passes made of it.
func (m *module) write(passes ...pass) []byte {
	code, debug := m.code(passes)
	out, todo := []byte(header), appended
	emit := func(id byte, n uint32, content []byte) {
		todo = todo[1:]
		if a := m.added[id]; a != nil {
			n += a.n
			content = append(content[:len(content):len(content)], a.data...)
		}
		if n > 0 {
			out = vec(append(out, id), append(uleb(nil, n), content...))
		}
	}
	for _, s := range m.sections {
		for len(todo) > 0 && order[todo[0]] < order[s.id] {
			emit(todo[0], 0, nil)
		}
		r := *s.r
		switch {
		case s.id == secCode:
			emit(secCode, r.u32(), code)
		case s.id == secTable:
			out = vec(append(out, secTable), tables(&r))
		case s.id == secMemory && m.ownMemory && m.pages <= MaxMemoryPages:
			out = vec(append(out, secMemory), memories(&r))
			todo = todo[1:]
		case s.id == secData:
			out = vec(append(out, secData), m.segments(r))
		case len(todo) > 0 && s.id == todo[0]:
			emit(s.id, r.u32(), r.rest())
		default:
			out = vec(append(out, s.id), r.rest())
		}
	}
	for len(todo) > 0 {
		emit(todo[0], 0, nil)
	}
	if names := m.nameSection(); names != nil {
		out = vec(append(out, secCustom), names)
	}
	return append(out, debug...)
}

// code returns the function bodies, and the custom sections that say which lines
// of the source they are of, if the module has such.
func (m *module) code(passes []pass) (out, debug []byte) {
	bodies := m.bodies()
	done := make([][]byte, len(bodies))
	m.lines.read()
	m.lines.out = make([][]row, len(bodies))
	var f function
	g := newGraph(m, bodies, &f)
	for _, index := range g.up {
		k := int(index) - m.imported
		r := bodies[k]
		f.decode(m, index, &r)
		f.cyclic, f.again = g.cyclic[index], g.again[index]
		f.seen = func(t uint32) bool { return g.left[len(m.funcs)+int(t)] < g.left[index] }
		for _, p := range passes {
			p.function(&f)
		}
		m.lines.rows = nil
		done[k] = f.encode(nil)
		m.lines.out[k] = m.lines.rows
	}
	for _, b := range done {
		out = vec(out, b)
	}
	if len(m.lines.old) > 0 {
		debug = m.lines.custom(done, uint32(len(done))+m.added[secCode].n)
	}
	return out, debug
}

func (m *module) bodies() []reader {
	for _, s := range m.sections {
		if s.id != secCode {
			continue
		}
		r := *s.r
		n := r.count()
		if int(n) != len(m.funcs)-m.imported {
			r.fail("%d bodies for %d functions", n, len(m.funcs)-m.imported)
		}
		out := make([]reader, n)
		for k := range out {
			n := r.u32()
			if n > maxBody {
				r.over("function of %d bytes is over the limit of %d", n, maxBody)
			}
			out[k] = *r.sub(n)
		}
		return out
	}
	if n := len(m.funcs) - m.imported; n > 0 {
		panic(&Error{Msg: fmt.Sprintf("%d functions have no bodies", n)})
	}
	return nil
}

// tables copies the table section and bounds every table.
func tables(r *reader) []byte {
	n := r.u32()
	if n > maxTables {
		r.over("%d tables are over the limit of %d", n, maxTables)
	}
	out := uleb(nil, n)
	for range n {
		out = append(out, r.u8())
		low, high, bounded := limits(r)
		if low > MaxTable {
			r.over("table of %d elements is over the limit of %d", low, MaxTable)
		}
		if !bounded || high > MaxTable {
			high = MaxTable
		}
		out = uleb(uleb(append(out, 1), low), high)
	}
	return append(out, r.rest()...)
}

// memories copies the memory section and bounds every memory (offset.go).
func memories(r *reader) []byte {
	n := r.u32()
	out := uleb(nil, n)
	for range n {
		low, high, bounded := limits(r)
		if !bounded {
			out = uleb(append(out, 0), low)
			continue
		}
		if high == MaxMemoryPages+1 { // More is not valid, and stays so.
			high = MaxMemoryPages
		}
		out = uleb(uleb(append(out, 1), low), high)
	}
	return out
}
