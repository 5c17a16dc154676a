// Package trie is a hash table that is a value: an edited one shares what did not
// change with the one before, which readers go on using.
//
// Keys are hashes already: their bits must be spread evenly, and whoever makes
// them says what two equal ones mean.
package trie

import (
	"iter"
	"math/bits"
)

const (
	fan   = 16 // children of a branch, 4 bits of the key
	width = 8  // slots of a leaf: their tags are one word
	top   = 64 - 4
)

// A Map is a table. The zero Map is empty; a copy of one is another table.
type Map[V any] struct {
	root child[V]
	n    int
}

// A child is a branch, or a leaf, or nothing. The tags are a byte of each key of
// the leaf, zero where there is none, so that most keys that are not there are not
// looked for in the leaf.
type child[V any] struct {
	branch *branch[V]
	leaf   *leaf[V]
	tags   uint64
}

type branch[V any] struct {
	owner *Edit
	kids  [fan]child[V]
}

type leaf[V any] struct {
	owner *Edit
	slots [width]slot[V]
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

func (c *child[V]) find(key uint64) *V {
	for hits := zeros(c.tags ^ tag(key)*ones); hits != 0; hits &= hits - 1 {
		if s := &c.leaf.slots[bits.TrailingZeros64(hits)/8%width]; s.key == key {
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
	for shift := top; c.branch != nil; shift -= 4 {
		c = &c.branch.kids[key>>shift%fan]
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
	for shift, deeper := top, m.root.branch != nil; deeper; shift -= 4 {
		deeper = false
		for i, key := range keys {
			if b := at[i%Batch].branch; b != nil {
				at[i%Batch], deeper = &b.kids[key>>shift%fan], true
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
	if c.branch != nil {
		for i := range c.branch.kids {
			if !c.branch.kids[i].all(yield) {
				return false
			}
		}
		return true
	}
	for i := range width {
		if c.tags>>(8*i)&0xff != 0 && !yield(c.leaf.slots[i].key, &c.leaf.slots[i].value) {
			return false
		}
	}
	return true
}
