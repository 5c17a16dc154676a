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
	width = 8  // slots of a child: their tags are one word
	step  = 4
	top   = uint(64 - step)
)

// A Map is a table. The zero Map is empty; a copy of one is another table.
type Map[V any] struct {
	root child[V]
	hold hold // of root, which is its bit 0
	n    int
}

// A child is a branch, or up to width slots, or nothing. The tags are a byte of each
// key in the slots, zero where there is none, so that most keys that are not there
// are not looked for in them, and so that their number need not be kept. It is as
// small as it can be: a change copies all children of the branches on its way.
type child[V any] struct {
	to   unsafe.Pointer // a *branch[V], or the first of the slots
	tags uint64
}

// isBranch is in the place of tags, of which every byte is odd.
const isBranch = 2

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
	return unsafe.Slice((*slot[V])(c.to), (bits.Len64(c.tags)+7)/8)
}

// find is nil for a branch too: no tag is even.
func (c *child[V]) find(key uint64) *V {
	for hits := zeros(c.tags ^ tag(key)*ones); hits != 0; hits &= hits - 1 {
		// Where there is a tag there is a slot: no check is needed.
		if s := (*slot[V])(unsafe.Add(c.to, uintptr(bits.TrailingZeros64(hits)/8)*unsafe.Sizeof(slot[V]{}))); s.key == key {
			return &s.value
		}
	}
	return nil
}

// Len is the number of keys.
func (m *Map[V]) Len() int { return m.n }

// Get returns the value of a key, which must not be modified; nil if there is none.
func (m *Map[V]) Get(key uint64) *V {
	c := &m.root
	for shift := top; c.tags == isBranch; shift -= step {
		c = &c.branch().kids[key>>(shift%64)%fan]
	}
	return c.find(key)
}

// Batch is how many keys GetAll takes at most.
const Batch = 16

// GetAll is Get for several keys at once: the memory of all is waited for together.
func (m *Map[V]) GetAll(keys []uint64, out *[Batch]*V) {
	var at [Batch]*child[V]
	for i := range keys {
		at[i%Batch] = &m.root
	}
	for shift, deeper := top, m.root.tags == isBranch; deeper; shift -= step {
		deeper = false
		for i, key := range keys {
			if c := at[i%Batch]; c.tags == isBranch {
				at[i%Batch], deeper = &c.branch().kids[key>>(shift%64)%fan], true
			}
		}
	}
	for i, key := range keys {
		out[i%Batch] = at[i%Batch].find(key)
	}
}

// All returns the keys and values in no order.
func (m *Map[V]) All() iter.Seq2[uint64, *V] {
	return func(yield func(uint64, *V) bool) { m.root.all(yield) }
}

func (c *child[V]) all(yield func(uint64, *V) bool) bool {
	if c.tags == isBranch {
		kids := &c.branch().kids
		for i := range kids {
			if !kids[i].all(yield) {
				return false
			}
		}
		return true
	}
	slots := c.slots()
	for i := range slots {
		if !yield(slots[i].key, &slots[i].value) {
			return false
		}
	}
	return true
}
