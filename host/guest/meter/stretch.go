package meter

import "slices"

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

func add(a, b sum) sum {
	if a.kind == sumConst {
		a, b = b, a
	}
	if b.kind == sumConst && a.kind != sumOther {
		return sum{a.kind, a.local, a.plus + b.plus} // which overflows as the guest's does
	}
	return sum{}
}
