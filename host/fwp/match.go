package fwp

import "fmt"

// Match is FWP_MATCH_TYPE.
type Match uint8

// The match types of BFE-CND-04. MatchPrefix and MatchNotPrefix test the end
// of the value, as the documentation says (AMB-34).
const (
	MatchEqual                Match = 0  // FWP_MATCH_EQUAL
	MatchGreater              Match = 1  // FWP_MATCH_GREATER
	MatchLess                 Match = 2  // FWP_MATCH_LESS
	MatchGreaterOrEqual       Match = 3  // FWP_MATCH_GREATER_OR_EQUAL
	MatchLessOrEqual          Match = 4  // FWP_MATCH_LESS_OR_EQUAL
	MatchRange                Match = 5  // FWP_MATCH_RANGE
	MatchFlagsAllSet          Match = 6  // FWP_MATCH_FLAGS_ALL_SET
	MatchFlagsAnySet          Match = 7  // FWP_MATCH_FLAGS_ANY_SET
	MatchFlagsNoneSet         Match = 8  // FWP_MATCH_FLAGS_NONE_SET
	MatchEqualCaseInsensitive Match = 9  // FWP_MATCH_EQUAL_CASE_INSENSITIVE
	MatchNotEqual             Match = 10 // FWP_MATCH_NOT_EQUAL
	MatchPrefix               Match = 11 // FWP_MATCH_PREFIX
	MatchNotPrefix            Match = 12 // FWP_MATCH_NOT_PREFIX
)

var matchNames = [...]string{"equal", "greater", "less", "greater_or_equal", "less_or_equal", "range",
	"flags_all_set", "flags_any_set", "flags_none_set", "equal_case_insensitive", "not_equal", "prefix", "not_prefix"}

func (m Match) String() string {
	if int(m) < len(matchNames) {
		return matchNames[m]
	}
	return fmt.Sprintf("Match(%d)", uint8(m))
}

// ParseMatch returns the match type of a name that String prints.
func ParseMatch(name string) (Match, bool) {
	for i, n := range matchNames {
		if n == name {
			return Match(i), true
		}
	}
	return 0, false
}

// MatchNames lists the names ParseMatch takes.
func MatchNames() []string { return matchNames[:] }

// Fits reports whether m can compare with a condition value of type t
// (BFE-CND-04).
func (m Match) Fits(t DataType) bool {
	text := t == ByteBlob || t == UnicodeString
	switch m {
	case MatchEqual:
		return true
	case MatchNotEqual, MatchGreater, MatchLess, MatchGreaterOrEqual, MatchLessOrEqual, MatchRange:
		return t.Sortable()
	case MatchFlagsAllSet, MatchFlagsAnySet, MatchFlagsNoneSet:
		return t.Unsigned()
	case MatchEqualCaseInsensitive:
		return t == UnicodeString
	case MatchPrefix, MatchNotPrefix:
		return text
	}
	return false
}
