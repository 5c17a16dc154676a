package trie

import "unsafe"

// A crown is what a large table has in the place of its root: forks, and below the last
// of them branches. A fork has nothing but pointers, since all its children are the
// same. So a change copies a third of what branches would be, and a search looks for
// nothing on its way. It grows with the table and goes with its last key: between, one
// that is too high costs memory for its branches and little time.
type crown struct {
	top    unsafe.Pointer // a *fork
	height int            // of forks; 0: there is no crown
}

type fork struct {
	owner *Edit
	kids  [fan]unsafe.Pointer // each a *fork, or a *branch[V] below the last
}

// enough keys for each child of a new row of branches leave few of them to be split
// before their time.
const enough = 2 * width

// child is where a key is: in a child of the root, or of a branch below the crown.
// The shift is what leads on from there.
func (m *Map[V]) child(key uint64) (*child[V], uint) {
	if m.crown.height == 0 {
		return &m.root, top
	}
	at, shift := m.crown.top, top
	for range m.crown.height {
		at, shift = (*fork)(at).kids[key>>(shift%64)%fan], shift-step
	}
	return &(*branch[V])(at).kids[key>>(shift%64)%fan], shift - step
}

// end is the pointer to a key's branch, on a way that is e's own.
func (c *crown) end(e *Edit, key uint64) (*unsafe.Pointer, uint) {
	at, shift := &c.top, top
	for range c.height {
		at, shift = &own(e, at).kids[key>>(shift%64)%fan], shift-step
	}
	return at, shift
}

func own(e *Edit, at *unsafe.Pointer) *fork {
	f := (*fork)(*at)
	if f.owner != e {
		mine := *f
		mine.owner, f = e, &mine
		*at = unsafe.Pointer(f)
	}
	return f
}

// ends goes to the pointers to all branches, on ways that are e's own; nil if they stay
// what they are.
func (c *crown) ends(e *Edit, yield func(*unsafe.Pointer) bool) {
	ends(e, &c.top, c.height, yield)
}

func ends(e *Edit, at *unsafe.Pointer, height int, yield func(*unsafe.Pointer) bool) bool {
	if height == 0 {
		return yield(at)
	}
	f := (*fork)(*at)
	if e != nil {
		f = own(e, at)
	}
	for i := range f.kids {
		if !ends(e, &f.kids[i], height-1, yield) {
			return false
		}
	}
	return true
}

// grow makes the branches below the crown forks, if there are keys enough for a row of
// branches below them.
func (m *Map[V]) grow(e *Edit) {
	if m.n>>(step*(m.crown.height+1)) < enough {
		return
	}
	if m.crown.height == 0 {
		m.crown.top, m.root, m.hold = m.root.to, child[V]{}, hold{}
	}
	shift := top - step*uint(m.crown.height+1)
	m.crown.ends(e, func(at *unsafe.Pointer) bool {
		b, f := (*branch[V])(*at), &fork{owner: e}
		for i, kid := range b.kids {
			if !kid.isBranch() {
				place[V]{child: &kid}.split(e, shift)
			}
			f.kids[i] = kid.to
		}
		*at = unsafe.Pointer(f)
		return true
	})
	m.crown.height++
}
