package arbitrate

import (
	"slices"
	"strings"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

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
			met = met || tests[i].holds(in) || in.PeerNames != nil && field == fwpm.ConditionPeerName && f.action == uint16(fwp.ActionBlock) && tests[i].holdsAny(in.PeerNames)
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

// holdsAny reports whether a test for a name holds for one of an address's, or may hold for
// one that was forgotten. One that excludes names does not become looser by others.
func (t *test) holdsAny(names *fwps.PeerNames) bool {
	switch t.kind {
	case textIs, textEnds, textStarts, textRange, textFold:
		return !t.not && (names.Forgotten || slices.ContainsFunc(names.Names, t.accepts))
	}
	return false
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
	return t.accepts(s), known
}

// accepts is a test of text.
func (t *test) accepts(s string) bool {
	switch t.kind {
	case textFold:
		return strings.EqualFold(s, t.more.text)
	case textEnds:
		return strings.HasSuffix(s, t.more.text)
	case textStarts:
		return strings.HasPrefix(s, t.more.text)
	case textRange:
		return s >= t.more.text && (t.low == 1 || s < t.more.text2 || s == t.more.text2 && t.high == 0)
	}
	return s == t.more.text
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
