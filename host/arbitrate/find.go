package arbitrate

import (
	"math/bits"
	"sort"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/trie"
)

// A cursor is a place in the order of a sublayer's filters: only those after it
// count.
type cursor struct {
	weight uint64
	id     fwpm.FilterID
	begun  bool
}

// admits is for a cursor that has begun.
func (c cursor) admits(f *filter) bool {
	w := f.weight()
	return w < c.weight || w == c.weight && f.ID > c.id
}

// A search is one walk through an index: the first matching filter of every
// sublayer, or of one of them after a place.
type search struct {
	in    *fwps.Incoming
	best  [together]*entry
	codes [together]code // of best
	subs  uint8          // the sublayers that are asked
	known facts
	after cursor

	protocol uint8
	port     uint16
	addr     uint32 // as in a brief
	user     uint32
	hi, lo   uint64 // the remote address; IPv4 in lo
	six      bool
	touched  code
}

// begin reads what the index needs of the incoming values once, into an empty
// search.
func (q *search) begin(in *fwps.Incoming, subs uint8) {
	q.in, q.subs, q.port, q.protocol, q.user, q.known = in, subs, in.Remote.Port(), in.Protocol, in.UserID, hasProtocol|hasMore|rounded|notLoopback
	if in.ConditionFlags()&fwp.FlagIsLoopback != 0 {
		q.known ^= loopback | notLoopback
	}
	if in.UserKnown {
		q.known |= hasUser
	}
	if in.Remote.IsValid() {
		q.known |= hasPort
	}
	if a, ok := in.Address(fwpm.ConditionIPRemoteAddress); ok {
		q.known |= hasAddr
		if q.six = !a.Is4(); q.six {
			q.hi, q.lo = words(a)
			q.addr = uint32(q.hi >> 32)
		} else {
			b := a.As4()
			q.addr = uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
			q.lo = uint64(q.addr)
		}
	}
}

// find walks to every list that can have a first match.
func (x *index) find(q *search) {
	q.list(&x.root)
	if x.root.node != nil {
		q.visit(x, []spot{{&x.root, rootKey}})
	}
	q.touched += warm(&q.best)
}

// warm touches what is read of the filters that were found, for all of them at once.
func warm(best *[together]*entry) (sum code) {
	for _, e := range best {
		if e != nil {
			sum += e.f.code
		}
	}
	return sum
}

// first is the filter that was found of a sublayer, nil if there is none.
func (q *search) first(place int) *filter {
	if e := q.best[place]; e != nil {
		return e.f
	}
	return nil
}

// open reports whether one of some sublayers could still have its first filter
// among those that weigh no more than most.
func (q *search) open(subs uint8, most code) bool {
	for left := subs & q.subs; left != 0; left &= left - 1 {
		if q.codes[bits.TrailingZeros8(left)%together] <= most {
			return true
		}
	}
	return false
}

// opens is open for what is in and below a node.
func (q *search) opens(subs uint8, n *node) bool {
	for left := subs & q.subs; left != 0; left &= left - 1 {
		if at := bits.TrailingZeros8(left) % together; q.codes[at] <= n.most[at] {
			return true
		}
	}
	return false
}

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
	q.touched = sum
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
	for len(v.spots) > 0 {
		s := &v.spots[0]
		if !v.begun {
			if n > trie.Batch-uint(ways) {
				return n
			}
			n = v.exact(s, out, n)
			if v.begun = true; v.q.known&hasAddr != 0 {
				v.left = s.node.lengths
			}
		}
		for i := range v.left {
			left := v.left[i]
			for ; left != 0 && n < trie.Batch; left &= left - 1 {
				out[n&last] = v.q.prefixKey(s.key, uint8(longest-i*64-bits.TrailingZeros64(left)))
				n += v.seen.has(out[n&last])
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
		out[n&last] = key(s.key, byUser, uint64(q.user))
		n += seen.has(out[n&last])
	}
	if ways&(1<<byLocalPort) != 0 {
		out[n&last] = key(s.key, byLocalPort, uint64(q.in.Local.Port()))
		n += seen.has(out[n&last])
	}
	if ways&(1<<byPort) != 0 {
		out[n&last] = key(s.key, byPort, uint64(q.port))
		n += seen.has(out[n&last])
	}
	if ways&(1<<byBin) != 0 {
		out[n&last] = key(s.key, byBin, uint64(q.port/portBin))
		n += seen.has(out[n&last])
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

// prefixKey is the key of the prefix of a length that covers the remote address.
func (q *search) prefixKey(node uint64, bits uint8) uint64 {
	if free := (32 - bits) % 64; !q.six {
		return prefixKey(node, bits, q.lo>>free<<free)
	}
	hi, lo := mask6(bits)
	return prefixKey(node, bits, fold(q.hi&hi, q.lo&lo))
}

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
