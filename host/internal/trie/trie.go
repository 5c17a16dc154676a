// Package trie is a hash table that is a value: an edited one shares what did not
// change with the one before, which readers go on using.
//
// Keys are hashes already: their bits must be spread evenly, and whoever makes
// them says what two equal ones mean.
package trie

import (
	"iter"
	"math/bits"
	"unsafe"
)

const (
	fan   = 16 // children of a branch, for 4 bits of the key
	width = 16 // slots of a child, whose tags are two words
	step  = 4
	top   = uint(64 - step)
)

// A Map is a table. The zero Map is empty; a copy of one is another table.
type Map[V any] struct {
	root  child[V] // of a table without a crown
	hold  hold     // of root, which is its bit 0
	crown crown
	n     int
}

// A child is a branch, or up to width slots, or nothing. The tags are a byte of each
// key in the slots, zero where there is none, so that most keys that are not there
// are not looked for in them, and so that their number need not be kept. It is as
// small as it can be: a change copies all children of the branches on its way. With
// half the slots it would be smaller, and a large table one branch deeper, of which
// most have next to nothing in them.
type child[V any] struct {
	to   unsafe.Pointer // a *branch[V], or the first of the slots
	tags [2]uint64
}

// isBranch is in the place of tags, of which every byte is odd.
const isBranch = 2

func (c *child[V]) isBranch() bool { return c.tags[0] == isBranch }

type branch[V any] struct {
	hold hold
	kids [fan]child[V]
}

// A hold says what an Edit may change in place: a branch, and of its children the
// slots whose bit is set.
type hold struct {
	owner *Edit
	slots uint16
}

type slot[V any] struct {
	key   uint64
	value V
}

// An Edit is a series of changes. What it has copied once it changes in place, so
// nobody else may read a Map before its Edit is over.
type Edit struct{ _ byte }

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

func tag(key uint64) uint64 { return key&0xff | 1 }

// zeros has the high bit of every byte of x that is zero.
func zeros(x uint64) uint64 { return ^((x&^highs + ^uint64(highs)) | x | ^uint64(highs)) }

// branch is what c is if its tags are isBranch.
func (c *child[V]) branch() *branch[V] { return (*branch[V])(c.to) }

// slots are what c has if it is no branch.
func (c *child[V]) slots() []slot[V] {
	n := (bits.Len64(c.tags[0])+7)/8 + (bits.Len64(c.tags[1])+7)/8
	return unsafe.Slice((*slot[V])(c.to), n)
}

// setTag sets the tag of a slot.
func (c *child[V]) setTag(i int, t uint64) {
	word, at := i/8, i%8*8
	c.tags[word] = c.tags[word]&^(0xff<<at) | t<<at
}

// hits has a bit for each slot whose tag is that of a key: of every eight bits the lowest
// for one of the first slots, the second for one of the others. A branch has none, since
// no tag is even.
func (c *child[V]) hits(key uint64) uint64 {
	t := tag(key) * ones
	return zeros(c.tags[0]^t)>>7 | zeros(c.tags[1]^t)>>6
}

// hit is the slot of the lowest of some hits. Where there is a tag there is a slot: no
// check is needed.
func (c *child[V]) hit(hits uint64) *slot[V] {
	at := uintptr(bits.TrailingZeros64(hits))
	return (*slot[V])(unsafe.Add(c.to, (at/8+at%8*8)*unsafe.Sizeof(slot[V]{})))
}

func (c *child[V]) find(key uint64) *V {
	for hits := c.hits(key); hits != 0; hits &= hits - 1 {
		if s := c.hit(hits); s.key == key {
			return &s.value
		}
	}
	return nil
}

// Len is the number of keys.
func (m *Map[V]) Len() int { return m.n }

// Get returns the value of a key, which must not be modified; nil if there is none.
func (m *Map[V]) Get(key uint64) *V {
	c, shift := m.child(key)
	for ; c.isBranch(); shift -= step {
		c = &c.branch().kids[key>>(shift%64)%fan]
	}
	return c.find(key)
}

// Batch is how many keys GetAll takes at most.
const Batch = 16

// GetAll is Get for several keys at once: the memory of all is waited for together. So
// it looks only at the first slot that could be a key's, which it mostly is.
func (m *Map[V]) GetAll(keys []uint64, out *[Batch]*V) {
	var at [Batch]*child[V]
	shift := top
	for i, key := range keys {
		at[i&(Batch-1)], shift = m.child(key)
	}
	for deeper := true; deeper; shift -= step {
		deeper = false
		for i, key := range keys {
			if c := at[i&(Batch-1)]; c.isBranch() {
				at[i&(Batch-1)], deeper = &c.branch().kids[key>>(shift%64)%fan], true
			}
		}
	}
	for i, key := range keys {
		c := at[i&(Batch-1)]
		hits := c.hits(key)
		if out[i&(Batch-1)] = nil; hits == 0 {
			continue
		}
		s := c.hit(hits)
		if out[i&(Batch-1)] = &s.value; s.key != key {
			out[i&(Batch-1)] = c.find(key)
		}
	}
}

// All returns the keys and values in no order.
func (m *Map[V]) All() iter.Seq2[uint64, *V] {
	return func(yield func(uint64, *V) bool) {
		if m.crown.height == 0 {
			m.root.all(yield)
			return
		}
		m.crown.ends(nil, func(at *unsafe.Pointer) bool { return (*branch[V])(*at).all(yield) })
	}
}

func (c *child[V]) all(yield func(uint64, *V) bool) bool {
	if c.isBranch() {
		return c.branch().all(yield)
	}
	slots := c.slots()
	for i := range slots {
		if !yield(slots[i].key, &slots[i].value) {
			return false
		}
	}
	return true
}

func (b *branch[V]) all(yield func(uint64, *V) bool) bool {
	for i := range b.kids {
		if !b.kids[i].all(yield) {
			return false
		}
	}
	return true
}
