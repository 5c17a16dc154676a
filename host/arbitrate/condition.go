package arbitrate

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// A test is a condition made ready: what to read of the incoming values and what
// it must be. Ordering becomes a closed interval, so there are few kinds.
type test struct {
	field fwpm.ConditionID
	kind  kind
	not   bool // the answer is turned round; an unknown value never matches
	// Numbers: low and high are the interval, or value and mask.
	low, high uint64
	more      *more // what numbers do not need
}

// more is the rest of a test. IPv6 addresses are numbers of two words.
type more struct {
	low2, high2 uint64
	text, text2 string
	aces        []ace
}

type kind uint8

const (
	isEmpty kind = iota
	inRange
	masked   // value&high == low
	anySet   // value&low != 0
	inRange6 // IPv6: (low, low2) to (high, high2)
	masked6
	textIs
	textFold
	textEnds
	textStarts
	textRange // text to text2; text2 "" with low 1: no upper end
	granted
)

// An ace is an entry of an access check with its SID taken apart.
type ace struct {
	deny, everyone, group bool
	id                    uint32
	sid                   fwp.SID // of no Unix user or group
}

// compileTests makes the filter's conditions ready: some go into its brief, the
// others are sorted by field, cheap ones first.
func (c *compiler) compileTests(e *entry) {
	s := c.scratch
	s.mores, s.aces = s.mores[:0], s.aces[:0]
	ts := s.tests[:0]
	for i := range e.f.Conditions {
		t := s.compileTest(&e.f.Conditions[i])
		if t.kind == textEnds && c.opts.PrefixMatchesStart {
			t.kind = textStarts
		}
		ts = append(ts, t)
	}
	s.tests = ts
	slices.SortStableFunc(ts, func(a, b test) int { return a.order() - b.order() })
	if s.tests = e.take(ts); len(s.tests) > 0 {
		s.extra.tests = s.tests
		e.f.extra = &s.extra
	}
}

// own gives the filter an extra of its own in the place of the one in a scratch.
func (f *filter) own() {
	if f.extra == nil {
		return
	}
	mine := *f.extra
	tests := slices.Clone(mine.tests)
	for i := range tests {
		if m := tests[i].more; m != nil {
			more := *m
			more.aces = slices.Clone(m.aces)
			tests[i].more = &more
		}
	}
	mine.tests, f.extra = tests, &mine
}

// order is the cost, then the field.
func (t *test) order() int { return t.cost()*int(fwpm.NumConditions) + int(t.field) }

// cost depends on the field alone where fields can have alternatives of several
// kinds, so that alternatives stay together.
func (t *test) cost() int {
	switch t.field {
	case fwpm.ConditionIPRemotePort, fwpm.ConditionIPLocalPort, fwpm.ConditionIPProtocol, fwpm.ConditionFlags:
		return 0
	case fwpm.ConditionIPRemoteAddress, fwpm.ConditionIPLocalAddress, fwpm.ConditionALEUserID:
		return 1
	case fwpm.ConditionALEAppID, fwpm.ConditionALEOriginalAppID:
		return 2
	}
	return 3
}

func (s *scratch) compileTest(c *fwpm.Condition) test {
	t := test{field: c.Field, not: c.Match == fwp.MatchNotEqual || c.Match == fwp.MatchNotPrefix}
	v := &c.Value
	if !v.Type.Unsigned() && v.Type != fwp.V4AddrMask && v.Type != fwp.Empty && (v.Type != fwp.RangeType || !v.Range.Low.Type.Unsigned()) {
		s.mores = append(s.mores, more{})
		t.more = &s.mores[len(s.mores)-1] // Where it is also when there are more of them elsewhere.
	}
	switch {
	case v.Type == fwp.Empty:
		t.kind = isEmpty
	case v.Type == fwp.V4AddrMask:
		t.kind = masked
		t.high = 0xffffffff &^ (0xffffffff >> v.Prefix.Bits())
		t.low = fwp.Addr(v.Prefix.Addr()).Uint & t.high
	case v.Type == fwp.V6AddrMask:
		t.mask6(v.Prefix)
	case v.Type == fwp.SecurityDescriptorType:
		from := len(s.aces)
		s.aces = appendACEs(s.aces, v.SD)
		t.kind, t.more.aces = granted, s.aces[from:len(s.aces):len(s.aces)]
	case v.Type == fwp.RangeType:
		t.between(v.Range.Low, v.Range.High)
	case v.Type == fwp.ByteBlob || v.Type == fwp.UnicodeString || v.Type == fwp.SIDType:
		t.textual(c.Match, v.Text)
	case v.Type == fwp.ByteArray16:
		t.address6(c.Match, v.Addr)
	default:
		t.number(c.Match, v.Uint, v.Type.Max())
	}
	return t
}

func (t *test) number(m fwp.Match, v, highest uint64) {
	t.kind, t.low, t.high = inRange, v, v
	switch m {
	case fwp.MatchGreater:
		t.low, t.high = v+1, highest // The checker refused the highest value.
	case fwp.MatchGreaterOrEqual:
		t.high = highest
	case fwp.MatchLess:
		t.low, t.high = 0, v-1
	case fwp.MatchLessOrEqual:
		t.low = 0
	case fwp.MatchFlagsAllSet:
		t.kind = masked
	case fwp.MatchFlagsNoneSet:
		t.kind, t.low = masked, 0
	case fwp.MatchFlagsAnySet:
		t.kind = anySet
	}
}

func words(a netip.Addr) (hi, lo uint64) {
	b := a.As16()
	return binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])
}

// mask6 is the mask of an IPv6 prefix.
func mask6(bits uint8) (hi, lo uint64) {
	return ^uint64(0) << (64 - min(bits, 64)), ^uint64(0) << (128 - max(bits, 64))
}

func (t *test) mask6(p netip.Prefix) {
	t.kind = masked6
	t.high, t.more.high2 = mask6(uint8(p.Bits()))
	hi, lo := words(p.Addr())
	t.low, t.more.low2 = hi&t.high, lo&t.more.high2
}

func (t *test) address6(m fwp.Match, a netip.Addr) {
	t.kind = inRange6
	t.low, t.more.low2 = words(a)
	t.high, t.more.high2 = t.low, t.more.low2
	switch m {
	case fwp.MatchGreater, fwp.MatchGreaterOrEqual:
		t.high, t.more.high2 = ^uint64(0), ^uint64(0)
		if m == fwp.MatchGreater {
			if t.more.low2++; t.more.low2 == 0 {
				t.low++
			}
		}
	case fwp.MatchLess, fwp.MatchLessOrEqual:
		t.low, t.more.low2 = 0, 0
		if m == fwp.MatchLess {
			if t.more.high2--; t.more.high2 == ^uint64(0) {
				t.high--
			}
		}
	}
}

func (t *test) textual(m fwp.Match, s string) {
	t.more.text = s
	switch m {
	case fwp.MatchEqualCaseInsensitive:
		t.kind = textFold
	case fwp.MatchPrefix, fwp.MatchNotPrefix:
		t.kind = textEnds // the end of the value (AMB-34)
	case fwp.MatchGreater, fwp.MatchGreaterOrEqual:
		t.kind, t.low = textRange, 1
		if m == fwp.MatchGreater {
			t.more.text += "\x00" // the next text there is
		}
	case fwp.MatchLess, fwp.MatchLessOrEqual:
		t.kind, t.more.text, t.more.text2 = textRange, "", s
		if m == fwp.MatchLess {
			t.high = 1 // without the upper end
		}
	default:
		t.kind = textIs
	}
}

func (t *test) between(low, high fwp.Value) {
	switch low.Type {
	case fwp.ByteArray16:
		t.kind = inRange6
		t.low, t.more.low2 = words(low.Addr)
		t.high, t.more.high2 = words(high.Addr)
	case fwp.ByteBlob, fwp.UnicodeString:
		t.kind, t.more.text, t.more.text2 = textRange, low.Text, high.Text
	default:
		t.kind, t.low, t.high = inRange, low.Uint, high.Uint
	}
}

// appendACEs keeps what the access check for ACTRL_MATCH_FILTER looks at (BFE-CND-07).
func appendACEs(out []ace, sd *fwp.SecurityDescriptor) []ace {
	for _, a := range sd.ACEs {
		if a.Mask&fwp.ActrlMatchFilter == 0 {
			continue
		}
		id, group, unix := a.SID.Unix()
		e := ace{deny: a.Deny, everyone: a.SID == fwp.SIDEveryone, group: group, id: id}
		if !unix && !e.everyone {
			e.sid = a.SID
		}
		out = append(out, e)
	}
	return out
}
