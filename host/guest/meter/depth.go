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
	// maxUncounted is how deep calls go, in those frames, without a function that counts:
	// a chain of functions with many parameters needs no circle.
	maxUncounted = 1 << 10
)

// depth is the pass that counts how deep calls nest. What is counted is one
// function at least of every circle of the call graph: those that a walk through
// the graph comes back to.
type depth struct {
	m       *module
	global  uint32
	counted int
	below   map[uint32]int32 // frames that a function takes, to the next that counts
	typed   map[uint32]int32 // the most of those of a type
}

func newDepth(m *module) *depth {
	p := &depth{m: m, global: m.addGlobal(MaxDepth), below: map[uint32]int32{}, typed: map[uint32]int32{}}
	m.addExport(DepthGlobal, kindGlobal, p.global)
	return p
}

// function puts the body into a block, so that every way out of it leads to where
// the depth is given back. A trap does not give it back: it ends the instance.
func (p *depth) function(f *function) {
	takes := frames(f)
	if way := p.way(f); takes+way > maxUncounted {
		takes += way
	} else if !f.again && !(f.cyclic && f.locals >= largeFrame) {
		t := p.m.types[p.m.funcs[f.index]].same
		p.below[f.index], p.typed[t] = takes+way, max(p.typed[t], takes+way)
		return
	}
	p.counted++
	results := f.m.types[f.m.funcs[f.index]].results
	body := f.label(label{op: opBlock, void: len(results) == 0})
	out := []instr{p.enter(f, takes), {op: opBlock, n: body, raw: append([]byte{opBlock}, p.blockType(results)...)}}
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
				out = append(out, instr{op: opEnd, n: body, raw: []byte{opEnd}}, p.leave(takes))
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

// way is how many frames the functions that this one calls take, as far as none counts.
func (p *depth) way(f *function) (way int32) {
	for k := range f.code {
		switch i := &f.code[k]; i.op {
		case opCall:
			way = max(way, p.below[i.n])
		case opCallIndirect:
			way = max(way, p.typed[p.m.types[i.n].same])
		}
	}
	return way
}

func frames(f *function) int32 { return int32(1 + f.locals/frameLocals) }

func (p *depth) enter(f *function, takes int32) instr {
	scratch := f.local()
	b := sleb(append(uleb([]byte{opGlobalGet}, p.global), opI32Const), takes)
	b = uleb(append(b, opI32Sub, opLocalTee), scratch)
	b = uleb(append(b, opGlobalSet), p.global)
	b = uleb(append(b, opLocalGet), scratch)
	return instr{op: opRaw, raw: append(b, opI32Const, 0, opI32LtS, opIf, void, opUnreachable, opEnd)}
}

func (p *depth) leave(takes int32) instr {
	b := sleb(append(uleb([]byte{opGlobalGet}, p.global), opI32Const), takes)
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
