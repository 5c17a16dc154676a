package meter

// walk follows a function as the compiler does.
func (e *effort) walk(f *function) {
	*e = effort{values: e.values, f: f, locals: f.read(), at: make([]int, len(f.labels)), blocks: e.blocks[:0]}
	e.open(0, opBlock)
	for k := range f.code {
		if i := &f.code[k]; !e.control(i) && !e.here.dead {
			e.plain(i)
		}
	}
	// What need not be a parameter of a block is found in rounds. A value that goes round
	// loops, from local to local, takes one for each.
	rounds := 2.0
	if e.loops > 0 {
		rounds += e.locals + e.loops
	}
	e.time += 3 * e.meetings * rounds
}

func (e *effort) open(label uint32, op byte) *block {
	e.at[label] = len(e.blocks)
	e.blocks = append(e.blocks, block{label: label, op: op, begin: e.here})
	return e.top()
}

func (e *effort) top() *block { return &e.blocks[len(e.blocks)-1] }

// branch is a way from here to a label.
func (e *effort) branch(label uint32) {
	b := &e.blocks[e.at[label]]
	if b.ways == 0 {
		b.end = e.here
	}
	b.end.deep, b.end.known = min(b.end.deep, e.here.deep), min(b.end.known, e.here.known)
	b.ways++
	b.deeps += e.here.deep
	e.make(e.f.labels[label].values)
}

// control follows what opens blocks and ends them.
func (e *effort) control(i *instr) bool {
	switch i.op {
	case opBlock, opIf, opLoop:
		b := e.open(i.n, i.op)
		e.make(e.f.labels[i.n].ends)
		if e.here.dead {
			break
		}
		if i.op == opIf {
			e.here.stack--
			b.begin = e.here
		}
		if i.op == opLoop {
			e.branch(i.n)
			e.around += 1 + float64(e.f.labels[i.n].values)
			e.loops = max(e.loops, e.around)
		}
		if i.op != opBlock {
			e.enter(1)
		}
	case opElse:
		b := e.top()
		e.otherwise(b)
		b.op = opElse
	case opEnd:
		e.end()
	default:
		return false
	}
	return true
}

// otherwise goes from the end of an if to where it is not taken.
func (e *effort) otherwise(b *block) {
	if !e.here.dead {
		e.branch(b.label)
	}
	if e.here = b.begin; !e.here.dead {
		e.enter(1)
	}
}

func (e *effort) end() {
	b := e.top()
	l := e.f.labels[b.label]
	switch {
	case b.op == opLoop && b.begin.dead:
		b.end.dead = true
	case b.op == opLoop:
		e.around -= 1 + float64(l.values)
		e.meet(b, l.values)
		b.end = e.here
	default:
		if b.op == opIf {
			e.otherwise(b)
		}
		if !e.here.dead {
			e.branch(b.label)
		}
		if b.ways > 1 {
			e.meet(b, l.ends)
		}
		b.end.dead = b.ways == 0
	}
	e.here, e.blocks = b.end, e.blocks[:len(e.blocks)-1]
	e.here.stack = b.begin.stack + float64(l.ends-l.params)
	if !e.here.dead {
		e.enter(1)
	}
}

// plain is an instruction that opens no block and ends none.
func (e *effort) plain(i *instr) {
	switch i.op {
	case opBr:
		e.branch(i.n)
		e.here.dead = true
	case opBrIf:
		e.here.stack--
		e.branch(i.n)
		e.enter(2)
	case opBrTable:
		e.here.stack--
		before := e.here
		for _, l := range i.table {
			e.here = before
			e.enter(1)
			e.branch(l)
		}
		e.here.dead = true
	case opReturn, opUnreachable:
		e.make(e.f.labels[0].values)
		e.here.dead = true
	case opCall:
		e.call(e.f.m.types[e.f.m.funcs[i.n]])
	case opCallIndirect:
		e.make(16)
		e.here.stack--
		e.call(e.f.m.types[i.n])
	case opRaw:
		e.raw(i)
	default:
		e.count(i)
	}
}

// call also loads every global again that can have changed.
func (e *effort) call(t signature) {
	e.make(4 + t.values())
	e.space += 200 * float64(e.f.m.mutable)
	e.here.stack += float64(len(t.results) - len(t.params))
}

// raw is what passes made: a payment, which is an if with a call in it, or a few
// instructions, of which only a comparison leaves a value.
func (e *effort) raw(i *instr) {
	e.make(8)
	switch i.raw[len(i.raw)-1] {
	case opEnd:
		e.call(signature{})
		e.detour(3)
	case opI32LtS:
		e.here.stack++
	}
}

// detour is code of blocks in which ways meet once.
func (e *effort) detour(blocks int) {
	e.enter(blocks - 1)
	e.meet(&block{ways: 2, deeps: 2 * e.here.deep}, 0)
	e.enter(1)
}

// count is an instruction that goes no other way.
func (e *effort) count(i *instr) {
	switch pops, pushes, ok := i.plainArity(); {
	case ok:
		e.here.stack += float64(pushes - pops)
	case i.op == opLocalGet || i.op == opI32Const || i.op == 0x3f || i.op == 0xd0 || i.op == opRefFunc:
		e.here.stack++
	case i.op == opDrop || i.op == opLocalSet || i.op == opGlobalSet || i.op >= 0x6d && i.op <= 0x82:
		e.here.stack--
	case i.op >= 0x36 && i.op <= 0x3e || i.op == 0x26 || i.op == 0x1c || i.bulk: // At least: more is not known of all.
		e.here.stack -= 2
	}
	switch {
	case i.accesses():
		e.here.known++
	case i.bulk: // Loops, and ways around them.
		e.detour(5)
		e.detour(5)
	}
	e.make(i.compiled())
}
