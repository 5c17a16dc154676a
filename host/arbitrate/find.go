package arbitrate

import (
	"math/bits"
	"sort"

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
	q.in, q.subs, q.port, q.protocol, q.user, q.known = in, subs, in.Remote.Port(), in.Protocol, in.UserID, hasProtocol|hasMore|rounded
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
	q.scan(x.root.list(), x.root.subs&q.subs)
	if x.root.node != nil {
		q.visit(x, &x.root, rootKey)
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

// visit looks at the buckets below a node to which the search's values lead, and at
// the rest of its list. It asks the table for all buckets at once, and touches what
// they lead to, so that the cache misses of all are waited for together. Nodes are
// for last: what is found before makes most of them not worth a look.
func (q *search) visit(x *index, b *bucket, key uint64) {
	for v := (visit{q: q, x: x, n: b.node, key: key}); ; {
		var room [trie.Batch]uint64
		keys := v.keys(room[:0])
		if len(keys) == 0 {
			break
		}
		var buckets [trie.Batch]*bucket
		x.table.GetAll(keys, &buckets)
		q.touch(buckets[:len(keys)])
		for _, b := range buckets[:len(keys)] {
			if b != nil && q.open(b.subs, b.most) {
				q.scan(b.list(), b.subs&q.subs)
			}
		}
		for i, key := range keys {
			if b := buckets[i%trie.Batch]; b != nil && b.node != nil && q.opens(b.subs, b.node) {
				q.visit(x, b, key)
			}
		}
	}
	q.walk(b.node.rest, b.subs&q.subs)
}

func (q *search) touch(buckets []*bucket) {
	var sum code
	for _, b := range buckets {
		if b != nil && b.first != nil {
			sum += b.first.weight
		}
	}
	q.touched = sum
}

// A visit makes the keys of the buckets below a node to which the search's values
// lead, a batch at a time.
type visit struct {
	q      *search
	x      *index
	n      *node
	key    uint64
	begun  bool
	length int
}

func (v *visit) keys(out []uint64) []uint64 {
	q, n := v.q, v.n
	if !v.begun {
		v.begun = true
		if n.ways[byApp] > 0 && q.in.AppID != "" {
			out = v.append(out, key(v.key, byApp, appHash(q.in.AppID)))
		}
		if n.ways[byUser] > 0 && q.known&hasUser != 0 {
			out = v.append(out, key(v.key, byUser, uint64(q.user)))
		}
		if n.ways[byLocalPort] > 0 {
			out = v.append(out, key(v.key, byLocalPort, uint64(q.in.Local.Port())))
		}
		if n.ways[byPort] > 0 {
			out = v.append(out, key(v.key, byPort, uint64(q.port)))
		}
		if n.ways[byBin] > 0 {
			out = v.append(out, key(v.key, byBin, uint64(q.port/portBin)))
		}
	}
	if q.known&hasAddr == 0 {
		return out
	}
	for ; v.length < len(n.lengths) && len(out) < trie.Batch; v.length++ {
		out = v.append(out, q.prefixKey(v.key, n.lengths[v.length].bits))
	}
	return out
}

// append appends a key that may be in the table.
func (v *visit) append(out []uint64, key uint64) []uint64 {
	if v.x.seen.has(key) {
		out = append(out, key)
	}
	return out
}

// prefixKey is the key of the prefix of a length that covers the remote address.
func (q *search) prefixKey(node uint64, bits uint8) uint64 {
	if !q.six {
		return prefixKey(node, bits, q.lo>>(32-bits)<<(32-bits))
	}
	hi, lo := mask6(bits)
	return prefixKey(node, bits, fold(q.hi&hi, q.lo&lo))
}

// scan looks at a list for filters of the sublayers left, and returns those of
// which later ones could still be the first.
func (q *search) scan(l []entry, left uint8) uint8 {
	for i := range l {
		e := &l[i]
		mine := uint8(1) << e.place
		if left&mine == 0 {
			continue
		}
		switch best := q.codes[e.place%together]; {
		case best > e.weight: // All that follow are lighter too.
		case !e.meets(q):
			continue
		case best == e.weight && !q.betters(e): // Neither are those that follow.
		case q.after.begun && !q.after.admits(e.f) || e.has&hasMore != 0 && !e.f.matches(q.in):
			continue
		default:
			q.best[e.place%together], q.codes[e.place%together] = e, e.weight
		}
		if left &^= mine; left == 0 {
			break
		}
	}
	return left
}

// betters reports whether an entry comes before what was found in its sublayer.
func (q *search) betters(e *entry) bool {
	b := q.best[e.place%together]
	return b == nil || before(e, b) < 0
}

// walk is scan for a list in chunks.
func (q *search) walk(l list, left uint8) {
	for _, chunk := range l[l.from(q.after):] {
		if !q.open(left, chunk[0].weight) {
			return
		}
		left = q.scan(chunk, left)
	}
}

// from is the chunk in which the filters after a place begin.
func (l list) from(after cursor) int {
	if !after.begun {
		return 0
	}
	return max(0, sort.Search(len(l), func(i int) bool { return after.admits(l[i][0].f) })-1)
}
