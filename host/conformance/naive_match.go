package conformance

import (
	"strings"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// matches is BFE-CND-01: fields AND, conditions on one field OR.
func (n *naive) matches(f *fwpm.Filter, in *fwps.Incoming) bool {
	byField := map[fwpm.ConditionID]bool{}
	for i := range f.Conditions {
		c := &f.Conditions[i]
		byField[c.Field] = byField[c.Field] || n.holds(c, in.Field(c.Field)) || n.blocksOther(f.Action, c, in)
	}
	for _, held := range byField {
		if !held {
			return false
		}
	}
	return true
}

// blocksOther is a block of one of the names of an address that is not the newest.
func (n *naive) blocksOther(a fwp.Action, c *fwpm.Condition, in *fwps.Incoming) bool {
	if a != fwp.ActionBlock || c.Field != fwpm.ConditionPeerName || in.PeerNames == nil || c.Value.Type == fwp.Empty ||
		c.Match == fwp.MatchNotEqual || c.Match == fwp.MatchNotPrefix {
		return false
	}
	for _, name := range in.PeerNames.Names {
		if n.holds(c, fwp.Blob(name)) {
			return true
		}
	}
	return in.PeerNames.Forgotten
}

func (n *naive) holds(c *fwpm.Condition, v fwp.Value) bool {
	if v.Type == fwp.Empty || c.Value.Type == fwp.Empty { // BFE-CND-06
		return v.Type == c.Value.Type && c.Match == fwp.MatchEqual
	}
	switch c.Match {
	case fwp.MatchEqual:
		return equal(c.Value, v)
	case fwp.MatchNotEqual:
		return !equal(c.Value, v)
	case fwp.MatchGreater:
		return v.Compare(c.Value) > 0
	case fwp.MatchLess:
		return v.Compare(c.Value) < 0
	case fwp.MatchGreaterOrEqual:
		return v.Compare(c.Value) >= 0
	case fwp.MatchLessOrEqual:
		return v.Compare(c.Value) <= 0
	case fwp.MatchRange:
		return v.Compare(c.Value.Range.Low) >= 0 && v.Compare(c.Value.Range.High) <= 0
	case fwp.MatchFlagsAllSet:
		return v.Uint&c.Value.Uint == c.Value.Uint
	case fwp.MatchFlagsAnySet:
		return v.Uint&c.Value.Uint != 0
	case fwp.MatchFlagsNoneSet:
		return v.Uint&c.Value.Uint == 0
	case fwp.MatchPrefix:
		return n.prefix(v.Text, c.Value.Text)
	case fwp.MatchNotPrefix:
		return !n.prefix(v.Text, c.Value.Text)
	}
	return false
}

// prefix tests the end of the value, unless the option says so (AMB-34).
func (n *naive) prefix(value, part string) bool {
	if n.Options().PrefixMatchesStart {
		return strings.HasPrefix(value, part)
	}
	return strings.HasSuffix(value, part)
}

func equal(want, v fwp.Value) bool {
	switch want.Type {
	case fwp.V4AddrMask:
		return fwp.Addr(want.Prefix.Addr()).Uint>>(32-want.Prefix.Bits()) == v.Uint>>(32-want.Prefix.Bits())
	case fwp.V6AddrMask:
		return want.Prefix.Contains(v.Addr)
	case fwp.ByteArray16:
		return v.Addr == want.Addr
	case fwp.SecurityDescriptorType:
		return want.SD.Grants(v.Token, fwp.ActrlMatchFilter)
	case fwp.ByteBlob, fwp.UnicodeString, fwp.SIDType, fwp.ByteArray6:
		return v.Text == want.Text
	}
	return v.Uint == want.Uint
}
