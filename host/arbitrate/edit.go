package arbitrate

import (
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
	b.most, b.subs = max(b.most, f.weight), b.subs|1<<f.place
	if b.node == nil && b.n < aFew {
		b.set(with(b.list(), f))
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
		n.owner, n.lengths, n.rest = e.own, slices.Clone(n.lengths), slices.Clone(n.rest)
		b.node = &n
	}
	return b.node
}

// below puts a filter where a way leads.
func (e *edit) below(n *node, w way, key uint64, f *entry, used wayset) {
	n.ways[w]++
	var room [manyValues]target
	for _, t := range f.targets(room[:0], w, key) {
		if t.prefix {
			n.count(t.bits, 1)
		}
		if e.x.table.Get(t.key) == nil {
			e.x.note(t.key)
		}
		e.put(e.x.table.Edit(e.own, t.key), t.key, f, used.with(w))
	}
}

// count notes that there is a prefix of a length more, or less.
func (n *node) count(bits uint8, more int32) {
	at, found := slices.BinarySearchFunc(n.lengths, bits, func(l length, bits uint8) int { return int(bits) - int(l.bits) })
	if !found {
		n.lengths = slices.Insert(n.lengths, at, length{bits: bits})
	}
	if n.lengths[at].n += uint32(more); n.lengths[at].n == 0 {
		n.lengths = slices.Delete(n.lengths, at, at+1)
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
	return b.n == 0 && (b.node == nil || b.node.ways == [ways]uint32{})
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
	at, found := locate(b.list(), f)
	if !found {
		return false
	}
	l := without(b.list(), at)
	b.set(l)
	b.most, b.subs = 0, 0
	for i := range l {
		l := &l[i]
		b.most, b.subs = max(b.most, l.weight), b.subs|1<<l.place
	}
	return true
}

func (e *edit) takeBelow(n *node, w way, key uint64, f *entry, used wayset) bool {
	n.ways[w]--
	var room [manyValues]target
	for _, t := range f.targets(room[:0], w, key) {
		if t.prefix {
			n.count(t.bits, -1)
		}
		if e.x.table.Get(t.key) == nil || !e.take(e.x.table.Edit(e.own, t.key), t.key, f, used.with(w)) {
			return false
		}
		if e.x.table.Get(t.key).empty() {
			e.x.table.Delete(e.own, t.key)
		}
	}
	return true
}
