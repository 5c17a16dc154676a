package arbitrate

import (
	"math/bits"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// A code is a weight in half its size: of two codes the larger is of the heavier,
// but two weights can have one code. Those of the engine's own making are exact.
type code uint32

const codeBits = 26 // of a weight, after its highest

func codeOf(weight uint64) code {
	if weight>>codeBits == 0 {
		return code(weight)
	}
	n := bits.Len64(weight) - 1 // the highest bit, codeBits at least
	return code(n-codeBits+1)<<codeBits | code(weight>>(n-codeBits))&(1<<codeBits-1)
}

// weight is the least weight that has the code.
func (c code) weight() uint64 {
	if c>>codeBits == 0 {
		return uint64(c)
	}
	return uint64(c&(1<<codeBits-1)|1<<codeBits) << (c>>codeBits - 1)
}

// A brief is the part of a filter's conditions that most filters have. It stands
// for the tests that it was made from, but for IPv6 prefixes, of which it has the
// first 32 bits.
type brief struct {
	addr      uint32 // remote: an IPv4 prefix, or the beginning of an IPv6 one
	user      uint32
	weight    code
	id        uint32 // of the filter, the highest number for those that are higher
	low, high uint16 // remote port
	free      uint8  // bits of addr that do not count
	protocol  uint8
	place     uint8 // of the sublayer in its group
	has       facts
}

// facts say which fields a brief is about, or which are known.
type facts uint8

const (
	hasAddr facts = 1 << iota
	hasUser
	hasPort
	hasProtocol
	hasMore // the filter has a program or tests
	rounded // the weight is more than its code says
	loopback
	notLoopback
)

// meets reports whether the search is for what the brief says.
func (b *brief) meets(q *search) bool {
	return b.has&^q.known == 0 && (b.addr^q.addr)>>b.free == 0 && q.port-b.low <= b.high-b.low &&
		(b.has&hasUser == 0 || b.user == q.user) && (b.has&hasProtocol == 0 || b.protocol == q.protocol)
}

// take puts into the brief what it can hold of the tests, and the program into the
// filter, and returns the other tests. Tests are sorted by field.
func (e *entry) take(tests []test) (rest []test) {
	e.free, e.high = 32, 1<<16-1
	rest = tests[:0]
	for i := range tests {
		t := tests[i]
		alternatives := i > 0 && tests[i-1].field == t.field || i < len(tests)-1 && tests[i+1].field == t.field
		if t.not || alternatives || !e.absorb(&t) {
			rest = append(rest, t)
		}
	}
	if len(rest) > 0 || e.f.app != "" {
		e.has |= hasMore
	}
	return rest
}

// absorb reports whether the test needs no keeping.
func (e *entry) absorb(t *test) bool {
	switch t.field {
	case fwpm.ConditionIPRemotePort:
		if t.kind == inRange {
			e.low, e.high, e.has = uint16(t.low), uint16(t.high), e.has|hasPort
			return true
		}
	case fwpm.ConditionIPProtocol:
		if t.kind == inRange && t.low == t.high {
			e.protocol, e.has = uint8(t.low), e.has|hasProtocol
			return true
		}
	case fwpm.ConditionALEUserID:
		if t.oneUser() {
			e.user, e.has = t.more.aces[0].id, e.has|hasUser
			return true
		}
	case fwpm.ConditionALEAppID:
		if t.kind == textIs && t.more.text != "" {
			e.f.app = t.more.text
			return true
		}
	case fwpm.ConditionIPRemoteAddress:
		return e.absorbAddress(t)
	case fwpm.ConditionFlags:
		return e.absorbFlags(t)
	}
	return false
}

// absorbFlags notes what the test wants of the one flag that most filters with flags
// are about. A filter that is for loopback alone weighs more than one that is not, so
// it is in the way of all that is not loopback.
func (e *entry) absorbFlags(t *test) bool {
	const flag = uint64(fwp.FlagIsLoopback)
	one := t.kind == anySet && t.low == flag
	switch {
	case one || t.kind == masked && t.low&flag != 0:
		e.has |= loopback
	case t.kind == masked && t.high&flag != 0:
		e.has |= notLoopback
	}
	return one || t.kind == masked && t.high == flag
}

func (e *entry) absorbAddress(t *test) bool {
	p, ok := t.prefix()
	if !ok {
		return false
	}
	e.has |= hasAddr
	if p.six {
		e.addr, e.free = uint32(p.hi>>32), uint8(32-min(p.bits, 32))
		return false
	}
	e.addr, e.free = uint32(p.lo), 32-p.bits
	return true
}
