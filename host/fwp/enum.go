package fwp

// FilterEnumType is FWP_FILTER_ENUM_TYPE: how the conditions of an enumeration
// template are compared with a filter's (ENUM-02).
type FilterEnumType uint32

// The ways to compare.
const (
	FilterEnumFullyContained FilterEnumType = 0 // FWP_FILTER_ENUM_FULLY_CONTAINED: the filter accepts all that the template describes
	FilterEnumOverlapping    FilterEnumType = 1 // FWP_FILTER_ENUM_OVERLAPPING: the filter accepts some of it
)

// FilterEnumFlags are FWP_FILTER_ENUM_FLAG_*.
type FilterEnumFlags uint32

// The flags of fwptypes.h.
const (
	FilterEnumBestTerminatingMatch FilterEnumFlags = 0x01 // FWP_FILTER_ENUM_FLAG_BEST_TERMINATING_MATCH
	FilterEnumSorted               FilterEnumFlags = 0x02 // FWP_FILTER_ENUM_FLAG_SORTED
	FilterEnumBoottimeOnly         FilterEnumFlags = 0x04 // FWP_FILTER_ENUM_FLAG_BOOTTIME_ONLY
	FilterEnumIncludeBoottime      FilterEnumFlags = 0x08 // FWP_FILTER_ENUM_FLAG_INCLUDE_BOOTTIME
	FilterEnumIncludeDisabled      FilterEnumFlags = 0x10 // FWP_FILTER_ENUM_FLAG_INCLUDE_DISABLED

	FilterEnumValidFlags FilterEnumFlags = 0x1f // every flag above
)

// Bits of an Action, for the action mask of an enumeration template.
const (
	ActionFlagTerminating    Action = 0x1000 // FWP_ACTION_FLAG_TERMINATING
	ActionFlagNonTerminating Action = 0x2000 // FWP_ACTION_FLAG_NON_TERMINATING
	ActionFlagCallout        Action = 0x4000 // FWP_ACTION_FLAG_CALLOUT
)
