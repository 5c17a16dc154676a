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
	var vaguest [fwpm.NumConditions]uint64 // of the alternatives on one field
	for _, c := range f.Conditions {
		if int(c.Field) >= len(vaguest) {
			continue
		}
		if s := specificity(c); vaguest[c.Field] == 0 || s < vaguest[c.Field] {
			vaguest[c.Field] = s
		}
	}
	var w uint64
	for _, s := range vaguest {
		w += s << 32
	}
	return min(w, 1<<60-1)
}

// specificity is at least 1 and at most 130.
func specificity(c fwpm.Condition) uint64 {
	switch {
	case c.Value.Type == fwp.V4AddrMask:
		return 1 + uint64(max(c.Value.Prefix.Bits(), 0))*4
	case c.Value.Type == fwp.V6AddrMask:
		return 1 + uint64(max(c.Value.Prefix.Bits(), 0))
	case c.Match == fwp.MatchEqual || c.Match == fwp.MatchEqualCaseInsensitive:
		return 130
	case c.Match == fwp.MatchRange:
		return 64
	}
	return 32
}
