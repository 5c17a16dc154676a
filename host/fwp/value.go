package fwp

import (
	"fmt"
	"net/netip"
)

// DataType is FWP_DATA_TYPE.
type DataType uint16

// The data types that conditions and fields of the ALE layers use.
const (
	Empty       DataType = 0  // FWP_EMPTY
	Uint8       DataType = 1  // FWP_UINT8
	Uint16      DataType = 2  // FWP_UINT16
	Uint32      DataType = 3  // FWP_UINT32
	Uint64      DataType = 4  // FWP_UINT64
	ByteArray16 DataType = 11 // FWP_BYTE_ARRAY16_TYPE: an IPv6 address
	ByteBlob    DataType = 12 // FWP_BYTE_BLOB_TYPE

	UnicodeString DataType = 17     // FWP_UNICODE_STRING_TYPE
	V4AddrMask    DataType = 0x0100 // FWP_V4_ADDR_MASK
	V6AddrMask    DataType = 0x0101 // FWP_V6_ADDR_MASK
	RangeType     DataType = 0x0102 // FWP_RANGE_TYPE
)

var dataTypeNames = map[DataType]string{
	Empty: "FWP_EMPTY", Uint8: "FWP_UINT8", Uint16: "FWP_UINT16", Uint32: "FWP_UINT32", Uint64: "FWP_UINT64",
	ByteArray16: "FWP_BYTE_ARRAY16", ByteBlob: "FWP_BYTE_BLOB", UnicodeString: "FWP_UNICODE_STRING",
	V4AddrMask: "FWP_V4_ADDR_MASK", V6AddrMask: "FWP_V6_ADDR_MASK", RangeType: "FWP_RANGE",
}

func (t DataType) String() string {
	if s, ok := dataTypeNames[t]; ok {
		return s
	}
	return fmt.Sprintf("DataType(%d)", uint16(t))
}

// Value is FWP_VALUE and FWP_CONDITION_VALUE: a tagged union without pointers
// to follow for the common types, so that reading a field allocates nothing.
// The zero Value is FWP_EMPTY.
//
// Which member holds the value follows from Type: the unsigned integers use
// Uint (an IPv4 address is a Uint32 in host byte order, ALE-FLD-04), ByteArray16
// uses Addr, ByteBlob and UnicodeString use Text, the address masks use Prefix
// and RangeType uses Range.
type Value struct {
	Type   DataType
	Uint   uint64
	Addr   netip.Addr
	Text   string
	Prefix netip.Prefix
	Range  *Range
}

// Range is FWP_RANGE: both ends belong to it and have one type.
type Range struct{ Low, High Value }

// U8, U16, U32 and U64 make integer values.
func U8(v uint8) Value   { return Value{Type: Uint8, Uint: uint64(v)} }
func U16(v uint16) Value { return Value{Type: Uint16, Uint: uint64(v)} }
func U32(v uint32) Value { return Value{Type: Uint32, Uint: uint64(v)} }
func U64(v uint64) Value { return Value{Type: Uint64, Uint: v} }

// Blob makes an FWP_BYTE_BLOB of text, the form of ALE_APP_ID.
func Blob(s string) Value { return Value{Type: ByteBlob, Text: s} }

// Addr makes an FWP_UINT32 of an IPv4 address and an FWP_BYTE_ARRAY16 of an
// IPv6 one. A v4-mapped address stays IPv6. The zero Addr is FWP_EMPTY.
func Addr(a netip.Addr) Value {
	switch {
	case !a.IsValid():
		return Value{}
	case a.Is4():
		b := a.As4()
		return U32(uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]))
	}
	return Value{Type: ByteArray16, Addr: a.WithZone("")}
}

// Mask makes an FWP_V4_ADDR_MASK or FWP_V6_ADDR_MASK.
func Mask(p netip.Prefix) Value {
	if p.Addr().Is4() {
		return Value{Type: V4AddrMask, Prefix: p.Masked()}
	}
	return Value{Type: V6AddrMask, Prefix: p.Masked()}
}

// Between makes an FWP_RANGE.
func Between(low, high Value) Value {
	return Value{Type: RangeType, Range: &Range{Low: low, High: high}}
}

// Match is FWP_MATCH_TYPE.
type Match uint8

// The match types of BFE-CND-04. MatchPrefix and MatchNotPrefix test the end
// of the value, as the documentation says (AMB-34).
const (
	MatchEqual                Match = 0
	MatchGreater              Match = 1
	MatchLess                 Match = 2
	MatchGreaterOrEqual       Match = 3
	MatchLessOrEqual          Match = 4
	MatchRange                Match = 5
	MatchFlagsAllSet          Match = 6
	MatchFlagsAnySet          Match = 7
	MatchFlagsNoneSet         Match = 8
	MatchEqualCaseInsensitive Match = 9
	MatchNotEqual             Match = 10
	MatchPrefix               Match = 11
	MatchNotPrefix            Match = 12
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
