package arbitrate

import (
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// EffectiveWeight is the 64-bit weight of a filter (BFE-WGT-01). Its automatic
// part, below 2^60, grows with how much the conditions say (AMB-40).
func EffectiveWeight(f *fwpm.Filter) (uint64, error) {
	switch {
	case f.Weight.Type == fwp.Uint64:
		return f.Weight.Value, nil
	case f.Weight.Type == fwp.Empty:
		return autoWeight(f), nil
	case f.Weight.Type == fwp.Uint8 && f.Weight.Value <= 15:
		return f.Weight.Value<<60 | autoWeight(f), nil
	}
	return 0, fwp.ErrInvalidWeight
}

func autoWeight(f *fwpm.Filter) uint64 {
	var vaguest [fwpm.NumConditions]uint8 // of the alternatives on one field
	var w uint64
	for i := range f.Conditions {
		c := &f.Conditions[i]
		if int(c.Field) >= len(vaguest) {
			continue
		}
		old, s := vaguest[c.Field], specificity(c)
		if old == 0 || s < old {
			vaguest[c.Field] = s
			w += uint64(s) - uint64(old)
		}
	}
	return w << 32
}

// specificity is at least 1 and at most 130.
func specificity(c *fwpm.Condition) uint8 {
	switch {
	case c.Value.Type == fwp.V4AddrMask:
		return 1 + uint8(max(c.Value.Prefix.Bits(), 0))*4
	case c.Value.Type == fwp.V6AddrMask:
		return 1 + uint8(max(c.Value.Prefix.Bits(), 0))
	case c.Match == fwp.MatchEqual || c.Match == fwp.MatchEqualCaseInsensitive:
		return 130
	case c.Match == fwp.MatchRange:
		return 64
	}
	return 32
}
