package meter

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

// maxBases is how many a function has at once: what more would win is little.
const maxBases = 64

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
		if used == maxBases || b.n < 2 || !b.moved && b.first == b.high { // There is nothing to win.
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
