package arbitrate

import (
	"math/bits"
	"sort"
)

// list looks at a bucket's list.
func (q *search) list(b *bucket) {
	if b.n == 0 {
		return
	}
	q.scan(&b.head, b.others(), b.subs&q.subs)
}

// scan looks at a list for filters of the sublayers left, and returns those of
// which later ones could still be the first.
func (q *search) scan(e *entry, others []entry, left uint8) uint8 {
	for {
		at := e.place % together
		if mine := uint8(1) << at; left&mine != 0 {
			switch best := q.codes[at]; {
			case best > e.weight: // All that follow are lighter too.
				left &^= mine
			case !e.meets(q):
			case best == e.weight && !q.betters(e): // Neither are those that follow.
				left &^= mine
			case q.after.begun && !q.after.admits(e.f) || e.has&hasMore != 0 && !e.f.matches(q.in):
			default:
				q.best[at], q.codes[at] = e, e.weight
				q.touched += e.f.code // Read while the search goes on.
				left &^= mine
			}
		}
		if len(others) == 0 || left == 0 {
			return left
		}
		e, others = &others[0], others[1:]
	}
}

// betters reports whether an entry comes before what was found in its sublayer.
func (q *search) betters(e *entry) bool {
	b := q.best[e.place%together]
	return b == nil || before(e, b) < 0
}

// walk is scan for a list in chunks.
func (q *search) walk(l list, left uint8) {
	for _, chunk := range l[l.from(q.after):] {
		if !q.awaits(left, &chunk[0]) {
			return
		}
		left = q.scan(&chunk[0], chunk[1:], left)
	}
}

// awaits reports whether an entry, or one after it in its list, could be the first of
// some sublayer.
func (q *search) awaits(subs uint8, e *entry) bool {
	for left := subs & q.subs; left != 0; left &= left - 1 {
		at := bits.TrailingZeros8(left) % together
		if c := q.codes[at]; c < e.weight || c == e.weight && (q.best[at] == nil || before(e, q.best[at]) < 0) {
			return true
		}
	}
	return false
}

// from is the chunk in which the filters after a place begin.
func (l list) from(after cursor) int {
	if !after.begun {
		return 0
	}
	return max(0, sort.Search(len(l), func(i int) bool { return after.admits(l[i][0].f) })-1)
}
