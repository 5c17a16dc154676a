package meter

const (
	// MaxDepth bounds how deep calls nest, in frames of frameLocals locals: the
	// stack of a guest is the host's memory, which fuel alone bounds at some
	// hundred megabytes.
	MaxDepth    = 1 << 13
	frameLocals = 32
	// largeFrame is from how many locals on a function in a circle is counted
	// though another in the circle is.
	largeFrame = 64
)

// depth is the pass that counts how deep calls nest. What is counted is one
// function at least of every circle of the call graph: those that a walk through
// the graph comes back to.
type depth struct {
	m       *module
	global  uint32
	counted int
}

func newDepth(m *module) *depth {
	p := &depth{m: m, global: m.addGlobal(MaxDepth)}
	m.addExport(DepthGlobal, kindGlobal, p.global)
	return p
}

// function puts the body into a block, so that every way out of it leads to where
// the depth is given back. A trap does not give it back: it ends the instance.
func (p *depth) function(f *function) {
	if !f.again && !(f.cyclic && f.locals >= largeFrame) {
		return
	}
	p.counted++
	results := f.m.types[f.m.funcs[f.index]].results
	body := f.label(label{op: opBlock, void: len(results) == 0})
	out := []instr{p.enter(f), {op: opBlock, n: body, raw: append([]byte{opBlock}, p.blockType(results)...)}}
	for k, i := range f.code {
		switch i.op {
		case opReturn:
			i = instr{op: opBr, n: body, at: i.at}
		case opBr, opBrIf:
			i.n = inside(i.n, body)
		case opBrTable:
			table := make([]uint32, len(i.table))
			for k, l := range i.table {
				table[k] = inside(l, body)
			}
			i.table = table
		case opEnd:
			if k == len(f.code)-1 {
				out = append(out, instr{op: opEnd, n: body, raw: []byte{opEnd}}, p.leave(f))
			}
		}
		out = append(out, i)
	}
	f.code = out
}

// inside is where a branch out of the function goes.
func inside(l, body uint32) uint32 {
	if l == 0 {
		return body
	}
	return l
}

func frames(f *function) int32 { return int32(1 + f.locals/frameLocals) }

func (p *depth) enter(f *function) instr {
	scratch := f.local()
	b := sleb(append(uleb([]byte{opGlobalGet}, p.global), opI32Const), frames(f))
	b = uleb(append(b, opI32Sub, opLocalTee), scratch)
	b = uleb(append(b, opGlobalSet), p.global)
	b = uleb(append(b, opLocalGet), scratch)
	return instr{op: opRaw, raw: append(b, opI32Const, 0, opI32LtS, opIf, void, opUnreachable, opEnd)}
}

func (p *depth) leave(f *function) instr {
	b := sleb(append(uleb([]byte{opGlobalGet}, p.global), opI32Const), frames(f))
	return instr{op: opRaw, raw: uleb(append(b, opI32Add, opGlobalSet), p.global)}
}

// blockType is that of a block with results and no parameters.
func (p *depth) blockType(results []byte) []byte {
	switch len(results) {
	case 0:
		return []byte{void}
	case 1:
		return results
	}
	t := append(uleb([]byte{0x60, 0}, uint32(len(results))), results...)
	return sleb(nil, int32(uint32(len(p.m.types))+p.m.add(secType, t)))
}
