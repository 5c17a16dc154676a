package arbitrate

import (
	"math/bits"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
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
