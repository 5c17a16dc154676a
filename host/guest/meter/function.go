package meter

// A label is a block, loop or if of a function; label 0 is the function itself.
type label struct {
	op     byte // opBlock for the function itself
	void   bool // the block has neither parameters nor results
	params bool // the block has parameters
	values int  // how many a branch to it takes along
	ends   int  // how many are there at its end
	used   bool // some branch names it
}

// A function is a body that passes change. Labels have numbers of their own, so
// that passes can insert blocks without counting depths again.
type function struct {
	m      *module
	index  uint32
	at     int    // offset of the code in the module, for errors
	locals uint32 // parameters and declared locals
	groups uint32
	decl   []byte // the declarations of the locals, without their count
	extra  uint32 // i32 locals that passes added
	cyclic bool   // it may be entered again before it returns
	again  bool   // it is one of those that close circles
	// seen reports whether all of a type that a table can hold came before this
	// function, but for what closes circles.
	seen   func(t uint32) bool
	code   []instr
	labels []label
}

// decode reads the body of function index. It uses the memory of f again.
func (f *function) decode(m *module, index uint32, r *reader) {
	params := len(m.types[m.funcs[index]].params)
	begin := *r
	begin.count()
	groups, n := readLocals(r)
	if n += uint64(params); n > maxLocals {
		r.over("function has %d locals, the limit is %d", n, maxLocals)
	}
	*f = function{m: m, index: index, at: r.off, locals: uint32(n), groups: groups,
		decl: r.b[begin.off:r.off], code: f.code[:0], labels: f.labels[:0]}
	results := len(m.types[m.funcs[index]].results)
	f.label(label{op: opBlock, values: results, ends: results})
	open := []uint32{0}
	for r.off < r.end {
		if len(open) == 0 {
			r.fail("code after the end of the function")
		}
		i := r.instr(nil)
		m.check(r, &i)
		switch i.op {
		case opBlock, opLoop, opIf:
			open = append(open, f.open(r, i))
			i.n = open[len(open)-1]
		case opElse, opEnd:
			i.n = open[len(open)-1]
			if i.op == opElse && f.labels[i.n].op != opIf {
				r.fail("else without if")
			}
			if i.op == opEnd {
				open = open[:len(open)-1]
			}
		case opBr, opBrIf:
			i.n = f.target(r, open, i.n)
		case opBrTable:
			for k, depth := range i.table {
				i.table[k] = f.target(r, open, depth)
			}
		}
		f.code = append(f.code, i)
	}
	if len(open) != 0 {
		r.fail("function does not end")
	}
}

// check refuses an instruction that names something the module does not have:
// it might name something that the rewriting adds.
func (m *module) check(r *reader, i *instr) {
	switch op := i.op; {
	case op == opCall || op == opRefFunc:
		m.has(r, "function", i.n, len(m.funcs))
	case op == opCallIndirect:
		m.has(r, "type", i.n, len(m.types))
	case op == opGlobalGet || op == opGlobalSet:
		m.has(r, "global", i.n, int(m.globals))
	case op >= 0x28 && op <= opMemoryGrow, op == opMisc && i.n >= 8 && i.n <= 11 && i.n != 9, op == opVector && (i.n <= 11 || i.n >= 84 && i.n <= 93):
		if !m.memory {
			r.fail("module has no memory")
		}
	}
}

func (m *module) has(r *reader, what string, index uint32, n int) {
	if int64(index) >= int64(n) {
		r.fail("%s %d does not exist", what, index)
	}
}

func (f *function) open(r *reader, i instr) uint32 {
	l := label{op: i.op, void: len(i.raw) == 2 && i.raw[1] == void}
	if !l.void {
		l.ends = 1
	}
	params := 0
	if t := int32(i.n); t >= 0 {
		f.m.has(r, "type", uint32(t), len(f.m.types))
		params, l.ends = len(f.m.types[t].params), len(f.m.types[t].results)
		l.params = params > 0
	}
	if l.values = l.ends; i.op == opLoop {
		l.values = params
	}
	return f.label(l)
}

func (f *function) target(r *reader, open []uint32, depth uint32) uint32 {
	if int64(depth) >= int64(len(open)) {
		r.fail("branch to depth %d of %d", depth, len(open))
	}
	l := open[len(open)-1-int(depth)]
	f.labels[l].used = true
	return l
}

// label adds one.
func (f *function) label(l label) uint32 {
	f.labels = append(f.labels, l)
	return uint32(len(f.labels) - 1)
}

// local adds one of type i32.
func (f *function) local() uint32 {
	f.extra++
	return f.locals + f.extra - 1
}

// end returns where the block that begins at k ends.
func (f *function) end(k int) int {
	for l := f.code[k].n; f.code[k].op != opEnd || f.code[k].n != l; k++ {
	}
	return k
}

// mark finds out again which labels branches name.
func (f *function) mark() {
	for i := range f.labels {
		f.labels[i].used = false
	}
	for k := range f.code {
		switch i := &f.code[k]; i.op {
		case opBr, opBrIf:
			f.labels[i.n].used = true
		case opBrTable:
			for _, l := range i.table {
				f.labels[l].used = true
			}
		}
	}
}

// encode appends the body to b.
func (f *function) encode(b []byte) []byte {
	if f.extra > 0 {
		b = append(uleb(append(uleb(b, f.groups+1), f.decl...), f.extra), 0x7f)
	} else {
		b = append(uleb(b, f.groups), f.decl...)
	}
	at := make([]int, len(f.labels)) // how many blocks are around each label
	from := 0                        // where code begins that is of the next instruction's line
	open := 1
	depth := func(l uint32) uint32 { return uint32(open - 1 - at[l]) }
	for k := range f.code {
		i := &f.code[k]
		if i.at > 0 && len(f.m.lines.old) > 0 {
			f.m.lines.note(int(i.at), from)
		}
		switch i.op {
		case opBlock, opLoop, opIf:
			at[i.n] = open
			open++
		case opEnd:
			open--
		case opBr, opBrIf:
			b = uleb(append(b, i.op), depth(i.n))
		case opBrTable:
			b = uleb(append(b, i.op), uint32(len(i.table)-1))
			for _, l := range i.table {
				b = uleb(b, depth(l))
			}
		}
		if i.op < opBr || i.op > opBrTable {
			b = append(b, i.raw...)
		}
		if i.at > 0 {
			from = len(b)
		}
	}
	return b
}
