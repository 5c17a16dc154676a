package arbitrate

import (
	"math/bits"
	"slices"

	"github.com/calloutd/calloutd/host/fwpm"
)

// exact reports whether a way leads to the filter: whether it names a few values.
func (e *entry) exact(w way) bool {
	f := e.f
	switch w {
	case byApp:
		return f.app != "" || f.few(fwpm.ConditionALEAppID, func(t *test) bool { return t.kind == textIs })
	case byNear, byMiddle, byFar:
		return e.remoteWay() == w
	case byUser:
		return e.has&hasUser != 0 || f.few(fwpm.ConditionALEUserID, (*test).oneUser)
	case byLocalPort:
		return f.few(fwpm.ConditionIPLocalPort, (*test).oneNumber)
	case byPort:
		return e.has&hasPort != 0 && e.low == e.high || f.few(fwpm.ConditionIPRemotePort, (*test).oneNumber)
	}
	return e.has&hasPort != 0 && e.low < e.high && e.high/portBin-e.low/portBin < manyValues
}

// group returns the tests on one field.
func (f *filter) group(field fwpm.ConditionID) []test {
	tests := f.tests()
	from := slices.IndexFunc(tests, func(t test) bool { return t.field == field })
	if from < 0 {
		return nil
	}
	to := from
	for to < len(tests) && tests[to].field == field {
		to++
	}
	return tests[from:to]
}

// few reports whether there are tests on a field, not too many, all of a kind.
func (f *filter) few(field fwpm.ConditionID, is func(*test) bool) bool {
	g := f.group(field)
	if len(g) == 0 || len(g) > manyValues {
		return false
	}
	for i := range g {
		if g[i].not || !is(&g[i]) {
			return false
		}
	}
	return true
}

// remoteWay is the way by the filter's remote prefixes, as vague as the shortest of
// them, ways if it names none.
func (e *entry) remoteWay() way {
	if e.has&hasAddr != 0 && e.f.group(fwpm.ConditionIPRemoteAddress) == nil {
		return remoteWay(32-e.free, farBits4, middleBits4)
	}
	g := e.f.group(fwpm.ConditionIPRemoteAddress)
	vaguest := ways
	for i := range g {
		p, ok := g[i].prefix()
		if !ok || len(g) > manyValues {
			return ways
		}
		w := remoteWay(p.bits, farBits4, middleBits4)
		if p.six {
			w = remoteWay(p.bits, farBits6, middleBits6)
		}
		if vaguest == ways || w > vaguest {
			vaguest = w
		}
	}
	return vaguest
}

func remoteWay(bits, far, middle uint8) way {
	switch {
	case bits <= far:
		return byFar
	case bits <= middle:
		return byMiddle
	}
	return byNear
}

// A prefix is an address test: IPv4 in lo.
type prefix struct {
	hi, lo uint64
	bits   uint8
	six    bool
}

// prefix says which prefix a test is, false if it is another test.
func (t *test) prefix() (prefix, bool) {
	switch {
	case t.not:
	case t.kind == masked && contiguous(t.high):
		return prefix{lo: t.low, bits: uint8(bits.OnesCount32(uint32(t.high)))}, true
	case t.kind == inRange && t.low == t.high:
		return prefix{lo: t.low, bits: 32}, true
	case t.kind == masked6:
		return prefix{t.low, t.more.low2, uint8(bits.OnesCount64(t.high) + bits.OnesCount64(t.more.high2)), true}, true
	case t.kind == inRange6 && t.low == t.high && t.more.low2 == t.more.high2:
		return prefix{t.low, t.more.low2, 128, true}, true
	}
	return prefix{}, false
}

// contiguous reports whether a mask is that of a prefix: FWP_MATCH_FLAGS_* makes
// others.
func contiguous(mask uint64) bool {
	return bits.OnesCount32(^uint32(mask)) == bits.Len32(^uint32(mask))
}

func (t *test) oneNumber() bool { return t.kind == inRange && t.low == t.high }

func (t *test) oneUser() bool {
	return t.kind == granted && len(t.more.aces) == 1 && t.more.aces[0].user()
}

// user reports whether the entry lets exactly one Unix user match.
func (a *ace) user() bool { return !a.deny && !a.everyone && !a.group && a.sid == "" }
