package arbitrate

import (
	"cmp"
	"slices"
	"sort"
)

// before is the order of arbitration: the heavier first, then the older (AMB-37).
func before(a, b *filter) int {
	return cmp.Or(cmp.Compare(b.weight(), a.weight()), cmp.Compare(a.ID, b.ID))
}

// with is a sorted list with one filter more, without the same list without it.
// Both leave l as it is.
func with(l []entry, e *entry) []entry {
	at := place(l, e.f)
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

// locate is where in a list a filter with f's identifier and weight is.
func locate(l []entry, f *filter) (at int, found bool) {
	at = place(l, f)
	return at, at < len(l) && l[at].f.ID == f.ID
}

// place is where in a list a filter is or would be.
func place(l []entry, f *filter) int {
	return sort.Search(len(l), func(i int) bool { return !l[i].before(f) })
}

// before is the order of an entry and a filter; mostly it takes no look at the
// entry's own.
func (e *entry) before(f *filter) bool {
	if e.weight != f.code {
		return e.weight > f.code
	}
	return before(e.f, f) < 0
}

// A list is a sorted list in chunks, so that a change copies little of it. A chunk
// is never empty and never changed in place.
type list [][]entry

const chunkLen = 64

// chunk is the one that a filter is in or would be.
func (l list) chunk(f *filter) int {
	after := sort.Search(len(l), func(i int) bool { return before(l[i][0].f, f) > 0 })
	return max(after-1, 0)
}

// insert adds to a list that the caller owns.
func (l list) insert(e *entry) list {
	if len(l) == 0 {
		return list{{*e}}
	}
	at := l.chunk(e.f)
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
func (l list) remove(f *filter) (out list, found bool) {
	if len(l) == 0 {
		return l, false
	}
	at := l.chunk(f)
	i, found := locate(l[at], f)
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
	n, l := b.node, b.list()
	if len(l) > 0 && len(n.rest) > 0 && before(e.f, l[len(l)-1].f) > 0 {
		n.rest = n.rest.insert(e)
		return
	}
	first, second := halves(with(l, e), len(n.rest) == 0)
	b.set(first)
	if second != nil {
		n.rest = slices.Insert(n.rest, 0, second)
	}
}

// drop is the reverse of keep.
func (b *bucket) drop(f *filter) bool {
	n := b.node
	if i, found := locate(b.list(), f); found {
		if b.set(without(b.list(), i)); b.n == 0 && len(n.rest) > 0 {
			b.set(n.rest[0])
			n.rest = slices.Delete(n.rest, 0, 1)
		}
		return true
	}
	var found bool
	n.rest, found = n.rest.remove(f)
	return found
}
