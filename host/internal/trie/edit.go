package trie

import (
	"slices"
	"unsafe"
)

// A place is a child that an edit has come to, and who holds it.
type place[V any] struct {
	*child[V]
	in  *hold
	bit uint16
}

// begin makes the root e's, or the way through the crown.
func (m *Map[V]) begin(e *Edit, key uint64) (place[V], uint) {
	if m.crown.height > 0 {
		end, shift := m.crown.end(e, key)
		return down[V](end, e, key, shift), shift - step
	}
	if m.hold.owner != e {
		m.hold = hold{owner: e}
	}
	return place[V]{&m.root, &m.hold, 1}, top
}

// down makes a branch e's own and goes to a child of it.
func down[V any](to *unsafe.Pointer, e *Edit, key uint64, shift uint) place[V] {
	b := (*branch[V])(*to)
	if b.hold.owner != e {
		mine := *b
		mine.hold = hold{owner: e}
		b = &mine
		*to = unsafe.Pointer(b)
	}
	i := key >> shift % fan
	return place[V]{&b.kids[i], &b.hold, 1 << i}
}

// own are the slots, which may be changed in place.
func (p place[V]) own() []slot[V] {
	if p.in.slots&p.bit == 0 {
		p.set(slices.Clone(p.slots()), p.tags)
	}
	return p.slots()
}

// set gives a child slots that nobody else has.
func (p place[V]) set(slots []slot[V], tags [2]uint64) {
	p.to, p.tags = unsafe.Pointer(unsafe.SliceData(slots)), tags
	p.in.slots |= p.bit
}

// Edit returns the value of a key to be changed, a zero one if there is none. It
// is good until the next call.
func (m *Map[V]) Edit(e *Edit, key uint64) *V {
	m.grow(e)
	for p, shift := m.begin(e, key); ; shift -= step {
		if !p.isBranch() {
			n := len(p.slots())
			if p.find(key) != nil {
				p.own()
				return p.find(key)
			}
			if n < width {
				m.n++
				return p.add(slot[V]{key: key})
			}
			p.split(e, shift)
		}
		p = down[V](&p.to, e, key, shift)
	}
}

// add takes one more slot, of which there must be room.
func (p place[V]) add(s slot[V]) *V {
	old := p.slots()
	n := len(old)
	more := make([]slot[V], n+1)
	copy(more, old)
	more[n] = s
	p.set(more, p.tags)
	p.setTag(n, tag(s.key))
	return &more[n].value
}

// drop gives a slot up: the last one takes its place.
func (p place[V]) drop(key uint64) {
	old := p.slots()
	last := len(old) - 1
	if last == 0 {
		*p.child = child[V]{}
		return
	}
	i := slices.IndexFunc(old, func(s slot[V]) bool { return s.key == key })
	fewer := slices.Clone(old[:last])
	p.set(fewer, p.tags)
	p.setTag(last, 0)
	if i < last {
		fewer[i] = old[last]
		p.setTag(i, tag(old[last].key))
	}
}

// split makes full slots a branch.
func (p place[V]) split(e *Edit, shift uint) {
	b := &branch[V]{hold: hold{owner: e}}
	for _, s := range p.slots() {
		i := s.key >> shift % fan
		place[V]{&b.kids[i], &b.hold, 1 << i}.add(s)
	}
	p.to, p.tags = unsafe.Pointer(b), [2]uint64{isBranch}
}

// Delete removes a key.
func (m *Map[V]) Delete(e *Edit, key uint64) {
	if m.Get(key) == nil {
		return
	}
	if m.n--; m.n == 0 {
		*m = Map[V]{}
		return
	}
	var path [64/step + 1]place[V]
	depth := 0
	p, shift := m.begin(e, key)
	for ; p.isBranch(); shift -= step {
		path[depth], depth = p, depth+1
		p = down[V](&p.to, e, key, shift)
	}
	p.drop(key)
	for depth > 0 && path[depth-1].merge() {
		depth--
	}
}

// merge makes a branch with little in it slots. Half of them stay free, so that the
// next key does not make it a branch again.
func (p place[V]) merge() bool {
	kids, n := &p.branch().kids, 0
	for i := range kids {
		if kids[i].isBranch() {
			return false
		}
		if n += len(kids[i].slots()); n > width/2 {
			return false
		}
	}
	*p.child = child[V]{}
	p.in.slots &^= p.bit
	for i := range kids {
		for _, s := range kids[i].slots() {
			p.add(s)
		}
	}
	return true
}
