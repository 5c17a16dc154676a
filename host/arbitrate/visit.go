package arbitrate

import (
	"math/bits"

	"github.com/calloutd/calloutd/host/internal/trie"
)

// A spot is a bucket with a node to which a search has come, and its key.
type spot struct {
	*bucket
	key uint64
}

// visit looks at the buckets below some nodes to which the search's values lead, and
// at the rest of their lists. It asks the table for all buckets at once, and touches
// what they lead to, so that the cache misses of all are waited for together. Nodes
// are for last: what is found before makes most of them not worth a look.
func (q *search) visit(x *index, spots []spot) {
	var below [4]spot
	n := 0
	var keys [trie.Batch]uint64
	var buckets [trie.Batch]*bucket
	v := &visit{q: q, seen: x.seen, spots: spots}
	for len(v.spots) > 0 {
		count := v.keys(&keys)
		x.table.GetAll(keys[:count], &buckets)
		q.touch(buckets[:count])
		for _, b := range buckets[:count] {
			if b != nil && q.open(b.subs, b.most) {
				q.list(b)
			}
		}
		for i, b := range buckets[:count] {
			if b == nil || b.node == nil || !q.opens(b.subs, b.node) {
				continue
			}
			if n == len(below) {
				q.visit(x, below[:])
				n = 0
			}
			below[n] = spot{b, keys[i&last]}
			n++
		}
	}
	if n > 0 {
		q.visit(x, below[:n])
	}
	for _, s := range spots {
		if left := s.subs & q.subs; s.node.long && q.open(left, s.node.after) {
			q.walk(s.node.rest, left)
		}
	}
}

// nothing stands for what is not there, so that touch waits for no answer whether it
// is: the processor would begin what it touches next only after a wrong guess.
var nothing = bucket{more: new(entry), node: new(node)}

// touch reads what the buckets lead to.
func (q *search) touch(buckets []*bucket) {
	var sum code
	for _, b := range buckets {
		if b == nil {
			b = &nothing
		}
		more, n := b.more, b.node
		if more == nil {
			more = nothing.more
		}
		if n == nil {
			n = nothing.node
		}
		sum += more.weight + n.after
	}
	q.touched += sum
}

// last is the highest place in a batch.
const last = trie.Batch - 1

// A visit makes the keys of the buckets below nodes to which the search's values
// lead, a batch at a time.
type visit struct {
	q     *search
	seen  *sieve
	spots []spot  // those that are left
	begun bool    // the first of them
	left  lengths // of its prefixes
}

// keys leaves a key that the sieve does not let through to be written over by the next.
func (v *visit) keys(out *[trie.Batch]uint64) (n uint) {
	q, seen := v.q, v.seen
	for len(v.spots) > 0 {
		s := &v.spots[0]
		if !v.begun {
			if n > trie.Batch-uint(ways) {
				return n
			}
			n = v.exact(s, out, n)
			if v.begun = true; q.known&hasAddr != 0 {
				v.left = s.node.lengths
			}
		}
		for i := range v.left {
			left := v.left[i]
			for ; left != 0 && n < trie.Batch; left &= left - 1 {
				length := uint8(longest - i*64 - bits.TrailingZeros64(left))
				k := prefixKey(s.key, length, q.prefix(length))
				out[n&last] = k
				n += seen.has(k)
			}
			if v.left[i] = left; left != 0 {
				return n
			}
		}
		v.spots, v.begun = v.spots[1:], false
	}
	return n
}

// exact is keys for the ways that have one each.
func (v *visit) exact(s *spot, out *[trie.Batch]uint64, n uint) uint {
	q, seen, ways, first := v.q, v.seen, s.node.ways, n
	app := ways&(1<<byApp) != 0 && q.in.AppID != ""
	if app { // It is the first, and made last: its text is what is waited for longest.
		n++
	}
	if ways&(1<<byUser) != 0 && q.known&hasUser != 0 {
		k := key(s.key, byUser, uint64(q.user))
		out[n&last] = k
		n += seen.has(k)
	}
	if ways&(1<<byLocalPort) != 0 {
		k := key(s.key, byLocalPort, uint64(q.in.Local.Port()))
		out[n&last] = k
		n += seen.has(k)
	}
	if ways&(1<<byPort) != 0 {
		k := key(s.key, byPort, uint64(q.port))
		out[n&last] = k
		n += seen.has(k)
	}
	if ways&(1<<byBin) != 0 {
		k := key(s.key, byBin, uint64(q.port/portBin))
		out[n&last] = k
		n += seen.has(k)
	}
	if app {
		k := key(s.key, byApp, appHash(q.in.AppID))
		if seen.has(k) == 0 {
			n--
			k = out[n&last]
		}
		out[first&last] = k
	}
	return n
}

// prefix is the prefix of a length that covers the remote address, as in a key.
func (q *search) prefix(length uint8) uint64 {
	if !q.six {
		free := (32 - length) % 64
		return q.lo >> free << free
	}
	return q.prefix6(length)
}

func (q *search) prefix6(length uint8) uint64 {
	hi, lo := mask6(length)
	return fold(q.hi&hi, q.lo&lo)
}
