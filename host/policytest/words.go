package policytest

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

var relations = map[fwp.Match]string{
	fwp.MatchEqual: "is", fwp.MatchNotEqual: "is not", fwp.MatchGreater: "is above", fwp.MatchLess: "is below",
	fwp.MatchGreaterOrEqual: "is at least", fwp.MatchLessOrEqual: "is at most", fwp.MatchRange: "is in",
	fwp.MatchFlagsAllSet: "has all of", fwp.MatchFlagsAnySet: "has any of", fwp.MatchFlagsNoneSet: "has none of",
	fwp.MatchEqualCaseInsensitive: "is, in any case,", fwp.MatchPrefix: "ends with", fwp.MatchNotPrefix: "does not end with",
}

// clause is a condition in words, such as "IP_REMOTE_PORT is 443".
func clause(c *fwpm.Condition) string {
	rel := relations[c.Match]
	if c.Match == fwp.MatchEqual {
		switch c.Value.Type {
		case fwp.V4AddrMask, fwp.V6AddrMask:
			rel = "is in"
		case fwp.SecurityDescriptorType:
			return c.Field.String() + " is " + userWords(c.Value.SD)
		case fwp.Empty:
			return c.Field.String() + " is not known"
		}
	}
	return fmt.Sprintf("%s %s %s", c.Field, rel, valueWords(c.Field, c.Value))
}

// valueWords prints a field's value as people write it.
func valueWords(f fwpm.ConditionID, v fwp.Value) string {
	switch {
	case v.Type == fwp.Empty:
		return "not known"
	case v.Type == fwp.RangeType && v.Range != nil:
		return valueWords(f, v.Range.Low) + "-" + valueWords(f, v.Range.High)
	case f.IsAddress() && v.Type == fwp.Uint32:
		n := uint32(v.Uint)
		return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}).String()
	case f == fwpm.ConditionFlags:
		if names := fwp.ConditionFlags(v.Uint).Names(); len(names) > 0 {
			return strings.Join(names, "|")
		}
		return "no flag"
	case f == fwpm.ConditionIPProtocol:
		return protocolWords(v.Uint)
	}
	return v.String()
}

func protocolWords(n uint64) string {
	switch n {
	case uint64(fwps.ProtocolTCP):
		return "tcp"
	case uint64(fwps.ProtocolUDP):
		return "udp"
	}
	return fmt.Sprint(n)
}

// userWords is a security descriptor that lets one user or group match, else its
// text.
func userWords(sd *fwp.SecurityDescriptor) string {
	if sd != nil && len(sd.ACEs) == 1 && !sd.ACEs[0].Deny {
		switch id, group, ok := sd.ACEs[0].SID.Unix(); {
		case ok && group:
			return fmt.Sprint("in group ", id)
		case ok:
			return fmt.Sprint("user ", id)
		}
	}
	return "granted by " + sd.String()
}
