package host

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// contains reports whether the filter's alternatives accept every value that c
// describes. Conditions that cannot be compared are not contained, but may
// overlap: two ends of a text, for example.
func (m *filterMatcher) contains(filter []fwpm.Condition, c fwpm.Condition) bool {
	if slices.ContainsFunc(filter, func(f fwpm.Condition) bool { return reflect.DeepEqual(f, c) }) {
		return true
	}
	if single(c) {
		return slices.ContainsFunc(filter, func(f fwpm.Condition) bool { return m.holds(f, c.Value) })
	}
	if want := spans(c); want != nil {
		return covered(want, filter)
	}
	want := cubes(c)
	return want != nil && !slices.ContainsFunc(want, func(t cube) bool {
		return !slices.ContainsFunc(filter, func(f fwpm.Condition) bool {
			return slices.ContainsFunc(cubes(f), func(h cube) bool { return h.contains(t) })
		})
	})
}

// overlaps reports whether the filter's alternatives accept some value that c
// describes.
func (m *filterMatcher) overlaps(filter []fwpm.Condition, c fwpm.Condition) bool {
	return slices.ContainsFunc(filter, func(f fwpm.Condition) bool {
		if single(c) {
			return m.holds(f, c.Value)
		}
		if single(f) {
			return m.holds(c, f.Value)
		}
		if a, b := spans(f), spans(c); a != nil && b != nil {
			return anyPair(a, b, span.overlaps)
		}
		a, b := cubes(f), cubes(c)
		return a == nil || b == nil || anyPair(a, b, cube.overlaps)
	})
}

// single reports whether a condition accepts one value only.
func single(c fwpm.Condition) bool {
	switch c.Value.Type {
	case fwp.V4AddrMask, fwp.V6AddrMask, fwp.SecurityDescriptorType:
		return false
	}
	return c.Match == fwp.MatchEqual
}

// holds reports whether a condition accepts a value.
func (m *filterMatcher) holds(c fwpm.Condition, v fwp.Value) bool {
	switch {
	case v.Type == fwp.Empty || c.Value.Type == fwp.Empty: // BFE-CND-06
		return v.Type == c.Value.Type
	case c.Value.Type == fwp.SecurityDescriptorType:
		return v.Type == fwp.SIDType && c.Value.SD.Grants(&fwp.Token{User: fwp.SID(v.Text)}, fwp.ActrlMatchFilter)
	case v.Type == fwp.ByteBlob || v.Type == fwp.UnicodeString || v.Type == fwp.SIDType:
		return m.holdsText(c, v)
	}
	at := number(v)
	if in := spans(c); in != nil {
		return slices.ContainsFunc(in, func(s span) bool { return s.overlaps(span{at, at}) })
	}
	return slices.ContainsFunc(cubes(c), func(k cube) bool { return v.Uint&k.mask == k.value })
}

func (m *filterMatcher) holdsText(c fwpm.Condition, v fwp.Value) bool {
	switch c.Match {
	case fwp.MatchEqualCaseInsensitive:
		return strings.EqualFold(v.Text, c.Value.Text)
	case fwp.MatchPrefix, fwp.MatchNotPrefix:
		has := strings.HasSuffix
		if m.starts {
			has = strings.HasPrefix
		}
		return has(v.Text, c.Value.Text) == (c.Match == fwp.MatchPrefix)
	case fwp.MatchRange:
		return v.Compare(c.Value.Range.Low) >= 0 && v.Compare(c.Value.Range.High) <= 0
	}
	return ordered(c.Match, v.Compare(c.Value))
}

// ordered is an ordering match of a value that compares so with the condition's.
func ordered(m fwp.Match, c int) bool {
	switch m {
	case fwp.MatchGreater:
		return c > 0
	case fwp.MatchGreaterOrEqual:
		return c >= 0
	case fwp.MatchLess:
		return c < 0
	case fwp.MatchLessOrEqual:
		return c <= 0
	case fwp.MatchNotEqual:
		return c != 0
	}
	return c == 0
}

// A wide is an integer or an address as a number of 128 bits.
type wide struct{ hi, lo uint64 }

func (a wide) compare(b wide) int { return cmp.Or(cmp.Compare(a.hi, b.hi), cmp.Compare(a.lo, b.lo)) }

func (a wide) next() wide {
	if a.lo++; a.lo == 0 {
		a.hi++
	}
	return a
}

func (a wide) previous() wide {
	if a.lo--; a.lo == ^uint64(0) {
		a.hi--
	}
	return a
}

func number(v fwp.Value) wide {
	if v.Type != fwp.ByteArray16 {
		return wide{0, v.Uint}
	}
	b := v.Addr.As16()
	return wide{binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])}
}

// most is the highest number of a type.
func most(t fwp.DataType) wide {
	switch t {
	case fwp.Uint8:
		return wide{0, 1<<8 - 1}
	case fwp.Uint16:
		return wide{0, 1<<16 - 1}
	case fwp.Uint32, fwp.V4AddrMask:
		return wide{0, 1<<32 - 1}
	case fwp.ByteArray16, fwp.V6AddrMask:
		return wide{^uint64(0), ^uint64(0)}
	}
	return wide{0, ^uint64(0)}
}

// A span is the numbers from low to high, both ends included.
type span struct{ low, high wide }

func (s span) overlaps(t span) bool { return s.low.compare(t.high) <= 0 && t.low.compare(s.high) <= 0 }

// spans are the numbers that a condition accepts, nil if it is none on numbers or
// one on flags.
func spans(c fwpm.Condition) []span {
	switch v := c.Value; {
	case v.Type == fwp.V4AddrMask || v.Type == fwp.V6AddrMask:
		return turned(c, prefix(v.Prefix))
	case v.Type == fwp.RangeType:
		if t := v.Range.Low.Type; !t.Unsigned() && t != fwp.ByteArray16 {
			return nil
		}
		return []span{{number(v.Range.Low), number(v.Range.High)}}
	case v.Type.Unsigned() || v.Type == fwp.ByteArray16:
		at, end := number(v), most(v.Type)
		switch c.Match {
		case fwp.MatchEqual, fwp.MatchNotEqual:
			return turned(c, span{at, at})
		case fwp.MatchGreater:
			return []span{{at.next(), end}}
		case fwp.MatchGreaterOrEqual:
			return []span{{at, end}}
		case fwp.MatchLess:
			return []span{{wide{}, at.previous()}}
		case fwp.MatchLessOrEqual:
			return []span{{wide{}, at}}
		}
	}
	return nil
}

// turned is s, or for NOT_EQUAL all but s.
func turned(c fwpm.Condition, s span) []span {
	if c.Match != fwp.MatchNotEqual {
		return []span{s}
	}
	out, end := []span{}, most(c.Value.Type)
	if s.low != (wide{}) {
		out = append(out, span{wide{}, s.low.previous()})
	}
	if s.high != end {
		out = append(out, span{s.high.next(), end})
	}
	return out
}

func prefix(p netip.Prefix) span {
	low, host := number(fwp.Addr(p.Masked().Addr())), p.Addr().BitLen()-p.Bits()
	high := wide{low.hi | (1<<max(host-64, 0) - 1), low.lo | (1<<min(host, 64) - 1)}
	return span{low, high}
}

// covered reports whether the filter's alternatives together accept all of want.
func covered(want []span, filter []fwpm.Condition) bool {
	var have []span
	for _, f := range filter {
		have = append(have, spans(f)...)
	}
	slices.SortFunc(have, func(a, b span) int { return a.low.compare(b.low) })
	return !slices.ContainsFunc(want, func(s span) bool { return !reaches(have, s) })
}

// reaches walks from the low end of s to its high end.
func reaches(have []span, s span) bool {
	at := s.low
	for _, h := range have {
		switch {
		case h.low.compare(at) > 0:
			return false
		case h.high.compare(s.high) >= 0:
			return true
		case h.high.compare(at) >= 0:
			at = h.high.next()
		}
	}
	return false
}

// A cube is the flags of which those in mask have the given value.
type cube struct{ mask, value uint64 }

func (c cube) contains(t cube) bool { return c.mask&^t.mask == 0 && t.value&c.mask == c.value }
func (c cube) overlaps(t cube) bool { return (c.value^t.value)&c.mask&t.mask == 0 }

// cubes are the flags that a condition accepts, nil if it is none on flags.
func cubes(c fwpm.Condition) []cube {
	v := c.Value.Uint
	switch c.Match {
	case fwp.MatchFlagsAllSet:
		return []cube{{v, v}}
	case fwp.MatchFlagsNoneSet:
		return []cube{{v, 0}}
	case fwp.MatchFlagsAnySet:
		var out []cube
		for ; v != 0; v &= v - 1 {
			bit := v & -v
			out = append(out, cube{bit, bit})
		}
		return out
	case fwp.MatchEqual:
		if c.Value.Type.Unsigned() {
			return []cube{{^uint64(0), v}}
		}
	}
	return nil
}

func anyPair[T any](as, bs []T, test func(a, b T) bool) bool {
	return slices.ContainsFunc(as, func(a T) bool {
		return slices.ContainsFunc(bs, func(b T) bool { return test(a, b) })
	})
}
