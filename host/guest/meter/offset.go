package meter

import "slices"

// offset helps the compiler with the members of structures. wazero checks every
// access to the memory, unless it knows that one by the same value went as far
// before; but p+4 is another value than p, and a compiler that cannot know whether
// p+4 overflows adds it up in place of giving it as the access's own offset. Where
// code that does nothing else makes several accesses that are near each other, by
// sums of one local, the lowest of them becomes the value, the others its offsets, and
// one access to the last byte of all comes first, if it is not the first anyway.
//
// What traps is the same: an address that overflows is of a value so high that the
// lowest access is outside of any memory, and that something before it is not read
// any more makes no difference where only reads and arithmetic are.
type offset struct {
	m     *module
	spare []instr
}

const (
	// farOffset is how far from the first access of a group others are looked at.
	farOffset = 1 << 15
)

// A sum is a value of the stack or of a local: a constant, what a local had where
// the code began plus a constant, or something else.
type sum struct {
	kind  byte
	local uint32
	plus  int32
}

const sumOther, sumConst, sumLocal = 0, 1, 2

// An access is a load by a sum.
type access struct {
	at, group int
	from, to  int32 // relative to the group
}

// A group is what accesses that are near each other go by: a local and, since its sum
// may be any, what the first of them adds to it.
type group struct {
	local uint32
	plus  int32
}

// A stretch is code that does nothing but read and count, from first to the last.
type stretch struct {
	f        *function
	first    int
	stack    []sum
	locals   map[uint32]sum
	accesses []access
	groups   []group
}

func (p *offset) function(f *function) {
	if p.m.pages > MaxMemoryPages || !p.m.ownMemory {
		return
	}
	out := p.spare[:0]
	var pool []uint32 // locals that the pass added
	s := stretch{f: f, locals: map[uint32]sum{}}
	for k := range f.code {
		if !s.step(k) {
			out = s.write(out, k, &pool)
			out = append(out, f.code[k])
			s.begin(k + 1)
		}
	}
	f.code, p.spare = out, f.code
}

func (s *stretch) begin(k int) {
	s.first, s.stack, s.accesses, s.groups = k, s.stack[:0], s.accesses[:0], s.groups[:0]
	clear(s.locals)
}

func (s *stretch) push(v sum) { s.stack = append(s.stack, v) }

func (s *stretch) pop() (v sum) {
	if n := len(s.stack); n > 0 {
		v, s.stack = s.stack[n-1], s.stack[:n-1]
	}
	return v
}

func (s *stretch) local(l uint32) sum {
	if v, set := s.locals[l]; set {
		return v
	}
	return sum{sumLocal, l, 0}
}

// step follows an instruction, and reports whether it belongs to the stretch.
func (s *stretch) step(k int) bool {
	i := &s.f.code[k]
	switch op := i.op; {
	case op == opLocalGet:
		s.push(s.local(i.n))
	case op == opLocalSet:
		s.locals[i.n] = s.pop()
	case op == opLocalTee:
		v := s.pop()
		s.locals[i.n] = v
		s.push(v)
	case op == opI32Const:
		s.push(sum{kind: sumConst, plus: int32(i.n)})
	case op == opI32Add:
		s.push(add(s.pop(), s.pop()))
	case op == opDrop:
		s.pop()
	case i.loads() > 0:
		s.load(k)
	default:
		pops, pushes, ok := i.plainArity()
		if !ok {
			return false
		}
		for range pops {
			s.pop()
		}
		for range pushes {
			s.push(sum{})
		}
	}
	return true
}

func add(a, b sum) sum {
	if a.kind == sumConst {
		a, b = b, a
	}
	if b.kind == sumConst && a.kind != sumOther {
		return sum{a.kind, a.local, a.plus + b.plus} // which overflows as the guest's does
	}
	return sum{}
}

// plainArity is what instructions take and leave that only count: none of them traps.
func (i *instr) plainArity() (pops, pushes int, ok bool) {
	switch op := i.op; {
	case op == opVector:
		return i.vectorArity()
	case op == opGlobalGet || op >= 0x42 && op <= 0x44: // constants
		return 0, 1, true
	case op == opSelect:
		return 3, 1, true
	case op >= 0x6d && op <= 0x70 || op >= 0x7f && op <= 0x82 || op >= 0xa8 && op <= 0xab || op >= 0xae && op <= 0xb1: // may trap
		return 0, 0, false
	case op == 0x45 || op == 0x50 || op >= 0x67 && op <= 0x69 || op >= 0x79 && op <= 0x7b ||
		op >= 0x8b && op <= 0x91 || op >= 0x99 && op <= 0x9f || op >= 0xa7 && op <= 0xc4:
		return 1, 1, true
	case op >= 0x46 && op <= 0xa6:
		return 2, 1, true
	}
	return 0, 0, false
}

// loadSize is how many bytes loads read, from 0x28 on.
var loadSize = [...]int32{4, 8, 4, 8, 1, 1, 2, 2, 1, 1, 2, 2, 4, 4}

// loads is how many bytes an instruction reads of the memory, and no more than that.
func (i *instr) loads() int32 {
	switch {
	case i.op >= 0x28 && i.op <= 0x35:
		return loadSize[i.op-0x28]
	case i.op == opVector:
		return vectorLoadSize(i.n)
	}
	return 0
}

func (s *stretch) load(k int) {
	i := &s.f.code[k]
	v := s.pop()
	s.push(sum{})
	if v.kind != sumLocal || i.offset >= farOffset {
		return
	}
	at := slices.IndexFunc(s.groups, func(g group) bool {
		far := v.plus - g.plus
		return g.local == v.local && far > -farOffset && far < farOffset
	})
	if at < 0 {
		at, s.groups = len(s.groups), append(s.groups, group{v.local, v.plus})
	}
	from := v.plus - s.groups[at].plus
	s.accesses = append(s.accesses, access{k, at, from, from + int32(i.offset) + i.loads()})
}

// A base is what the accesses of a group go by.
type base struct {
	local     uint32 // added; it has the lowest address
	low, high int32
	n         int
	first     int32 // how far the first access goes
	moved     bool  // some are not by the guest's local itself
}

func (s *stretch) bases() []base {
	out := make([]base, len(s.groups))
	for _, a := range s.accesses {
		b := &out[a.group]
		if b.n == 0 {
			b.low, b.high, b.first = a.from, a.to, a.to
		}
		b.n++
		b.low, b.high = min(b.low, a.from), max(b.high, a.to)
		b.moved = b.moved || s.groups[a.group].plus+a.from != 0
	}
	return out
}

// write appends the stretch, which ends before end.
func (s *stretch) write(out []instr, end int, pool *[]uint32) []instr {
	bases := s.bases()
	used := 0
	for g := range bases {
		b := &bases[g]
		if b.n < 2 || !b.moved && b.first == b.high { // There is nothing to win.
			b.n = 0
			continue
		}
		if used == len(*pool) {
			*pool = append(*pool, s.f.local())
		}
		b.local = (*pool)[used]
		used++
		out = b.lead(out, s.groups[g])
	}
	from := s.first
	for _, a := range s.accesses {
		b := &bases[a.group]
		if b.n == 0 {
			continue
		}
		sum := s.f.sumBefore(a.at, from)
		out = append(out, s.f.code[from:sum]...)
		if sum == a.at {
			out = append(out, drop)
		}
		out = append(out, localInstr(opLocalGet, b.local), s.f.code[a.at].moved(uint32(a.from-b.low)))
		from = a.at + 1
	}
	return append(out, s.f.code[from:end]...)
}

// sumBefore is where the instructions begin that add up the operand of k and do nothing
// else, not before from: k if there are others.
func (f *function) sumBefore(k, from int) int {
	op := func(back int) byte {
		if k-back < from {
			return opRaw
		}
		return f.code[k-back].op
	}
	switch {
	case op(1) == opLocalGet:
		return k - 1
	case op(1) == opI32Add && op(2) == opI32Const && op(3) == opLocalGet:
		return k - 3
	}
	return k
}

// lead sets the base, and touches the last byte of all accesses if the first does
// not.
func (b *base) lead(out []instr, g group) []instr {
	out = append(out, localInstr(opLocalGet, g.local))
	if low := g.plus + b.low; low != 0 {
		out = append(out, instr{op: opI32Const, n: uint32(low), raw: sleb([]byte{opI32Const}, low)}, instr{op: opI32Add, raw: []byte{opI32Add}})
	}
	out = append(out, localInstr(opLocalSet, b.local))
	if b.first == b.high {
		return out
	}
	return append(out, localInstr(opLocalGet, b.local), loadInstr(opI32Load8U, 0, uint32(b.high-1-b.low)), drop)
}

var drop = instr{op: opDrop, raw: []byte{opDrop}}

func localInstr(op byte, l uint32) instr { return instr{op: op, n: l, raw: uleb([]byte{op}, l)} }

// moved is a load with so much more offset. How it is aligned is only a hint.
func (i *instr) moved(by uint32) instr {
	load := loadInstr(i.op, 0, i.offset+by)
	if i.op == opVector {
		load.n, load.raw = i.n, uleb(append(uleb([]byte{opVector}, i.n), 0), load.offset)
	}
	load.at = i.at
	return load
}

func loadInstr(op byte, align, off uint32) instr {
	return instr{op: op, n: align, offset: off, raw: uleb(uleb([]byte{op}, align), off)}
}
