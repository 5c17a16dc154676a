package arbitrate

import (
	"cmp"
	"math"
	"slices"
	"sort"
)

// before is the order of arbitration: the heavier first, then the older (AMB-37).
// Mostly it takes no look at the filters.
func before(a, b *entry) int {
	switch {
	case a.weight != b.weight:
		return cmp.Compare(b.weight, a.weight)
	case (a.has|b.has)&rounded == 0 && min(a.id, b.id) < highest:
		return cmp.Compare(a.id, b.id)
	}
	return cmp.Or(cmp.Compare(b.f.weight(), a.f.weight()), cmp.Compare(a.f.ID, b.f.ID))
}

// highest stands for all identifiers from there on.
const highest = math.MaxUint32

// with is a sorted list with one filter more, without the same list without it.
// Both leave l as it is.
func with(l []entry, e *entry) []entry {
	at := place(l, e)
	out := make([]entry, len(l)+1)
	copy(out, l[:at])
	out[at] = *e
	copy(out[at+1:], l[at:])
	return out
}

func without(l []entry, at int) []entry {
	if len(l) == 1 {
		return nil
	}
	out := make([]entry, len(l)-1)
	copy(out, l[:at])
	copy(out[at:], l[at+1:])
	return out
}

// locate is where in a list a filter with e's identifier and weight is.
func locate(l []entry, e *entry) (at int, found bool) {
	at = place(l, e)
	return at, at < len(l) && before(&l[at], e) == 0
}

// place is where in a list a filter is or would be.
func place(l []entry, e *entry) int {
	return sort.Search(len(l), func(i int) bool { return before(&l[i], e) >= 0 })
}

// A list is a sorted list in chunks, so that a change copies little of it. A chunk
// is never empty and never changed in place.
type list [][]entry

const chunkLen = 64

// chunk is the one that a filter is in or would be.
func (l list) chunk(e *entry) int {
	after := sort.Search(len(l), func(i int) bool { return before(&l[i][0], e) > 0 })
	return max(after-1, 0)
}

// insert adds to a list that the caller owns.
func (l list) insert(e *entry) list {
	if len(l) == 0 {
		return list{{*e}}
	}
	at := l.chunk(e)
	first, second := halves(with(l[at], e), at == len(l)-1)
	l[at] = first
	if second == nil {
		return l
	}
	return slices.Insert(l, at+1, second)
}

// halves makes two of a chunk that is too long. The last one of a list is likely to
// grow at its end, so only one filter leaves it.
func halves(chunk []entry, last bool) (first, second []entry) {
	if len(chunk) <= chunkLen {
		return chunk, nil
	}
	half := chunkLen / 2
	if last {
		half = chunkLen
	}
	return slices.Clone(chunk[:half]), slices.Clone(chunk[half:])
}

// remove takes a filter out of a list that the caller owns.
func (l list) remove(e *entry) (out list, found bool) {
	if len(l) == 0 {
		return l, false
	}
	at := l.chunk(e)
	i, found := locate(l[at], e)
	if !found {
		return l, false
	}
	if l[at] = without(l[at], i); l[at] == nil {
		l = slices.Delete(l, at, at+1)
	}
	return l, true
}

// keep adds an entry to the filters that no way leads from a bucket with a node to,
// which the caller owns.
func (b *bucket) keep(e *entry) {
	n := b.node
	if b.n > 0 && len(n.rest) > 0 && before(e, b.last()) > 0 {
		n.rest = n.rest.insert(e)
	} else if b.insert(e); b.n > chunkLen {
		first, second := halves(b.list(), len(n.rest) == 0)
		b.set(first)
		n.rest = slices.Insert(n.rest, 0, second)
	}
	n.tail()
}

// drop is the reverse of keep.
func (b *bucket) drop(e *entry) (found bool) {
	n := b.node
	if found = b.remove(e); !found {
		n.rest, found = n.rest.remove(e)
	} else if b.n == 0 && len(n.rest) > 0 {
		b.set(n.rest[0])
		n.rest = slices.Delete(n.rest, 0, 1)
	}
	n.tail()
	return found
}

// tail notes what rest begins with.
func (n *node) tail() {
	if n.long, n.after = len(n.rest) > 0, 0; n.long {
		n.after = n.rest[0][0].weight
	}
}
