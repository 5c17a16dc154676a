package arbitrate

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
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
	slices.SortStableFunc(ts, func(a, b test) int {
		return cmp.Or(cmp.Compare(a.cost(), b.cost()), cmp.Compare(a.field, b.field))
	})
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

// tests are sorted by field: neighbours on one field are alternatives.
func (f *filter) tests() []test {
	if f.extra == nil {
		return nil
	}
	return f.extra.tests
}

// matches reports whether every field meets one of its conditions (BFE-CND-01),
// those aside that are in the brief.
func (f *filter) matches(in *fwps.Incoming) bool {
	if f.app != "" && f.app != in.AppID {
		return false
	}
	tests := f.tests()
	for i := 0; i < len(tests); {
		field, met := tests[i].field, false
		for ; i < len(tests) && tests[i].field == field; i++ {
			met = met || tests[i].holds(in)
		}
		if !met {
			return false
		}
	}
	return true
}

// holds is one condition. A value that is not known matches FWP_EMPTY only
// (BFE-CND-06).
func (t *test) holds(in *fwps.Incoming) bool {
	var met, known bool
	switch t.kind {
	case isEmpty:
		return empty(in, t.field)
	case inRange, masked, anySet:
		met, known = t.holdsNumber(in)
	case inRange6, masked6:
		met, known = t.holdsAddress(in)
	case granted:
		if t.field == fwpm.ConditionALEUserID {
			return in.UserKnown && t.grants(in)
		}
		return t.holdsToken(in)
	default:
		met, known = t.holdsText(in)
	}
	return known && met != t.not
}

func (t *test) holdsNumber(in *fwps.Incoming) (met, known bool) {
	v, known := in.Number(t.field)
	switch t.kind {
	case masked:
		return v&t.high == t.low, known
	case anySet:
		return v&t.low != 0, known
	}
	return t.low <= v && v <= t.high, known
}

func (t *test) holdsAddress(in *fwps.Incoming) (met, known bool) {
	a, known := in.Address(t.field)
	if !known || !a.Is6() {
		return false, false
	}
	hi, lo := words(a)
	if t.kind == masked6 {
		return hi&t.high == t.low && lo&t.more.high2 == t.more.low2, true
	}
	above := hi > t.low || hi == t.low && lo >= t.more.low2
	below := hi < t.high || hi == t.high && lo <= t.more.high2
	return above && below, true
}

func (t *test) holdsText(in *fwps.Incoming) (met, known bool) {
	s, known := in.Text(t.field)
	switch t.kind {
	case textFold:
		return strings.EqualFold(s, t.more.text), known
	case textEnds:
		return strings.HasSuffix(s, t.more.text), known
	case textStarts:
		return strings.HasPrefix(s, t.more.text), known
	case textRange:
		return s >= t.more.text && (t.low == 1 || s < t.more.text2 || s == t.more.text2 && t.high == 0), known
	}
	return s == t.more.text, known
}

// grants is the access check of a Unix user.
func (t *test) grants(in *fwps.Incoming) bool {
	for i := range t.more.aces {
		a := &t.more.aces[i]
		if a.everyone || a.sid == "" && (a.group && slices.Contains(in.Groups, a.id) || !a.group && a.id == in.UserID) {
			return !a.deny
		}
	}
	return false
}

// holdsToken is the access check of a token that came with the fields.
func (t *test) holdsToken(in *fwps.Incoming) bool {
	tok := in.Other[t.field].Token
	if tok == nil {
		return false
	}
	for i := range t.more.aces {
		if a := &t.more.aces[i]; tok.Has(a.name()) {
			return !a.deny
		}
	}
	return false
}

func (a *ace) name() fwp.SID {
	switch {
	case a.everyone:
		return fwp.SIDEveryone
	case a.sid != "":
		return a.sid
	case a.group:
		return fwp.GroupSID(a.id)
	}
	return fwp.UserSID(a.id)
}

// empty reports whether a field of the layer has no value.
func empty(in *fwps.Incoming, c fwpm.ConditionID) bool {
	if c == fwpm.ConditionALEUserID { // Its value is made when asked for.
		return !in.UserKnown
	}
	return in.Field(c).Type == fwp.Empty
}
