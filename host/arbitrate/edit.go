package arbitrate

import (
	"cmp"
	"slices"

	"github.com/calloutd/calloutd/host/internal/trie"
)

// An edit changes an index that nobody else sees yet. What it shares with another
// one it copies first.
type edit struct {
	x   *index
	own *trie.Edit
}

// rootKey is the key of the root, as a node.
const rootKey = 0

// add puts a filter into the index.
func (e *edit) add(f *entry) { e.put(&e.x.root, rootKey, f, 0) }

// put puts a filter into a bucket, of which key is the way. The bucket must not be
// used after: it may be elsewhere then.
func (e *edit) put(b *bucket, key uint64, f *entry, used wayset) {
	b.note(f)
	if b.node == nil && b.n < aFew {
		b.insert(f)
		return
	}
	var moved []entry
	if b.node == nil {
		moved = b.list()
		b.set(nil)
	}
	n := e.inside(b)
	var stay []entry
	for i := range moved {
		n.most[moved[i].place] = max(n.most[moved[i].place], moved[i].weight)
		if moved[i].reach(used) == ways {
			stay = append(stay, moved[i])
		}
	}
	if stay != nil {
		b.set(stay)
	}
	n.most[f.place] = max(n.most[f.place], f.weight)
	w := f.reach(used)
	if w == ways {
		b.keep(f)
	}
	for i := range moved { // The bucket is not used from here on.
		if w := moved[i].reach(used); w != ways {
			e.below(n, w, key, &moved[i], used)
		}
	}
	if w != ways {
		e.below(n, w, key, f, used)
	}
}

// inside returns the node of a bucket, to be changed.
func (e *edit) inside(b *bucket) *node {
	switch {
	case b.node == nil:
		b.node = &node{owner: e.own}
	case b.node.owner != e.own:
		n := *b.node
		n.owner, n.prefixes, n.rest = e.own, slices.Clone(n.prefixes), slices.Clone(n.rest)
		b.node = &n
	}
	return b.node
}

// below puts a filter where a way leads.
func (e *edit) below(n *node, w way, key uint64, f *entry, used wayset) {
	n.counts[w]++
	n.ways |= 1 << w
	var room [manyValues]target
	for _, t := range f.targets(room[:0], w, key) {
		if t.prefix {
			n.count(t.bits, 1)
		}
		b := e.x.table.Edit(e.own, t.key)
		if b.empty() { // It is new.
			e.x.note(t.key)
		}
		e.put(b, t.key, f, used.with(w))
	}
}

// count notes that there is a prefix of a length more, or less.
func (n *node) count(bits uint8, more int32) {
	at, found := slices.BinarySearchFunc(n.prefixes, bits, func(l length, bits uint8) int { return cmp.Compare(l.bits, bits) })
	if !found {
		n.prefixes = slices.Insert(n.prefixes, at, length{bits: bits})
		n.lengths.set(bits)
	}
	if n.prefixes[at].n += uint32(more); n.prefixes[at].n == 0 {
		n.prefixes = slices.Delete(n.prefixes, at, at+1)
		n.lengths.clear(bits)
	}
}

// remove takes the filter with f's identifier and conditions out of the index, and
// reports whether it was there.
func (e *edit) remove(f *entry) bool {
	ok := e.take(&e.x.root, rootKey, f, 0)
	if e.x.root.empty() {
		*e.x = index{}
	}
	return ok
}

func (b *bucket) empty() bool {
	return b.n == 0 && (b.node == nil || b.node.ways == 0)
}

// take takes a filter out of a bucket, which must not be used after.
func (e *edit) take(b *bucket, key uint64, f *entry, used wayset) bool {
	if b.node != nil {
		n := e.inside(b)
		if w := f.reach(used); w != ways {
			return e.takeBelow(n, w, key, f, used)
		}
		return b.drop(f)
	}
	if !b.remove(f) {
		return false
	}
	b.most, b.subs = 0, 0
	if b.n > 0 {
		b.note(&b.head)
	}
	for i := range b.others() {
		b.note(&b.others()[i])
	}
	return true
}

func (e *edit) takeBelow(n *node, w way, key uint64, f *entry, used wayset) bool {
	if n.counts[w]--; n.counts[w] == 0 {
		n.ways &^= 1 << w
	}
	var room [manyValues]target
	for _, t := range f.targets(room[:0], w, key) {
		if t.prefix {
			n.count(t.bits, -1)
		}
		if !e.takeFrom(t.key, f, used.with(w)) {
			return false
		}
	}
	return true
}

// takeFrom takes a filter out of the bucket of a key, and the bucket out of the table
// if nothing else is in it: mostly so without a copy of it.
func (e *edit) takeFrom(key uint64, f *entry, used wayset) bool {
	b := e.x.table.Get(key)
	if b == nil {
		return false
	}
	last := b.node == nil && b.n == 1 && before(&b.head, f) == 0
	if !last {
		if !e.take(e.x.table.Edit(e.own, key), key, f, used) {
			return false
		}
		last = b.node != nil && e.x.table.Get(key).empty()
	}
	if last {
		e.x.table.Delete(e.own, key)
	}
	return true
}
