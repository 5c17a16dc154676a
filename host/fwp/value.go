package fwp

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"strings"
)

// DataType is FWP_DATA_TYPE.
type DataType uint16

// The data types of fwptypes.h that filters of the ALE layers can meet.
const (
	Empty                  DataType = 0      // FWP_EMPTY
	Uint8                  DataType = 1      // FWP_UINT8
	Uint16                 DataType = 2      // FWP_UINT16
	Uint32                 DataType = 3      // FWP_UINT32
	Uint64                 DataType = 4      // FWP_UINT64
	Int8                   DataType = 5      // FWP_INT8
	Int16                  DataType = 6      // FWP_INT16
	Int32                  DataType = 7      // FWP_INT32
	Int64                  DataType = 8      // FWP_INT64
	Float                  DataType = 9      // FWP_FLOAT
	Double                 DataType = 10     // FWP_DOUBLE
	ByteArray16            DataType = 11     // FWP_BYTE_ARRAY16_TYPE: an IPv6 address
	ByteBlob               DataType = 12     // FWP_BYTE_BLOB_TYPE
	SIDType                DataType = 13     // FWP_SID
	SecurityDescriptorType DataType = 14     // FWP_SECURITY_DESCRIPTOR_TYPE
	TokenInformation       DataType = 15     // FWP_TOKEN_INFORMATION_TYPE
	TokenAccessInformation DataType = 16     // FWP_TOKEN_ACCESS_INFORMATION_TYPE
	UnicodeString          DataType = 17     // FWP_UNICODE_STRING_TYPE
	ByteArray6             DataType = 18     // FWP_BYTE_ARRAY6_TYPE
	V4AddrMask             DataType = 0x0100 // FWP_V4_ADDR_MASK
	V6AddrMask             DataType = 0x0101 // FWP_V6_ADDR_MASK
	RangeType              DataType = 0x0102 // FWP_RANGE_TYPE
)

var dataTypeNames = map[DataType]string{
	Empty: "FWP_EMPTY", Uint8: "FWP_UINT8", Uint16: "FWP_UINT16", Uint32: "FWP_UINT32", Uint64: "FWP_UINT64",
	Int8: "FWP_INT8", Int16: "FWP_INT16", Int32: "FWP_INT32", Int64: "FWP_INT64", Float: "FWP_FLOAT", Double: "FWP_DOUBLE",
	ByteArray16: "FWP_BYTE_ARRAY16_TYPE", ByteBlob: "FWP_BYTE_BLOB_TYPE", SIDType: "FWP_SID",
	SecurityDescriptorType: "FWP_SECURITY_DESCRIPTOR_TYPE", TokenInformation: "FWP_TOKEN_INFORMATION_TYPE",
	TokenAccessInformation: "FWP_TOKEN_ACCESS_INFORMATION_TYPE", UnicodeString: "FWP_UNICODE_STRING_TYPE",
	ByteArray6: "FWP_BYTE_ARRAY6_TYPE", V4AddrMask: "FWP_V4_ADDR_MASK", V6AddrMask: "FWP_V6_ADDR_MASK", RangeType: "FWP_RANGE_TYPE",
}

func (t DataType) String() string {
	if s, ok := dataTypeNames[t]; ok {
		return s
	}
	return fmt.Sprintf("DataType(%d)", uint16(t))
}

// Unsigned reports whether t is one of the unsigned integers.
func (t DataType) Unsigned() bool { return t >= Uint8 && t <= Uint64 }

// Max is the highest value of an unsigned integer, 0 for other types.
func (t DataType) Max() uint64 {
	switch t {
	case Uint8:
		return math.MaxUint8
	case Uint16:
		return math.MaxUint16
	case Uint32:
		return math.MaxUint32
	case Uint64:
		return math.MaxUint64
	}
	return 0
}

// Sortable reports whether values of t can be ordered (BFE-CND-04).
func (t DataType) Sortable() bool {
	return t >= Uint8 && t <= Int64 || t == ByteArray16 || t == ByteBlob || t == UnicodeString
}

// Value is FWP_VALUE and FWP_CONDITION_VALUE: a tagged union. The zero Value is
// FWP_EMPTY.
//
// Which member holds the value follows from Type: integers use Uint (signed ones
// in two's complement, floats as IEEE bits; an IPv4 address is a Uint32 in host
// byte order, ALE-FLD-04), ByteArray16 uses Addr, the address masks use Prefix,
// ranges Range, security descriptors SD and tokens Token. ByteBlob, UnicodeString,
// SIDType and ByteArray6 use Text.
type Value struct {
	Type   DataType
	Uint   uint64
	Addr   netip.Addr
	Text   string
	Prefix netip.Prefix
	Range  *Range
	SD     *SecurityDescriptor
	Token  *Token
}

// Range is FWP_RANGE: both ends belong to it and have one type.
type Range struct{ Low, High Value }

// U8, U16, U32 and U64 make unsigned values.
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

// Compare orders two values of one sortable type.
func (v Value) Compare(w Value) int {
	switch {
	case v.Type >= Int8 && v.Type <= Int64:
		return cmp.Compare(int64(v.Uint), int64(w.Uint))
	case v.Type == ByteArray16:
		return v.Addr.Compare(w.Addr)
	case v.Type == ByteBlob || v.Type == UnicodeString:
		return strings.Compare(v.Text, w.Text)
	}
	return cmp.Compare(v.Uint, w.Uint)
}

// String prints a value for people: addresses and prefixes the usual way, SIDs
// and security descriptors in their text form.
func (v Value) String() string {
	switch v.Type {
	case Empty:
		return "empty"
	case Int8, Int16, Int32, Int64:
		return fmt.Sprint(int64(v.Uint))
	case Float:
		return fmt.Sprint(math.Float32frombits(uint32(v.Uint)))
	case Double:
		return fmt.Sprint(math.Float64frombits(v.Uint))
	case ByteArray16:
		return v.Addr.String()
	case ByteBlob, UnicodeString, SIDType:
		return v.Text
	case ByteArray6:
		return fmt.Sprintf("% x", v.Text)
	case V4AddrMask, V6AddrMask:
		return v.Prefix.String()
	case RangeType:
		if v.Range == nil {
			return "no range"
		}
		return v.Range.Low.String() + "-" + v.Range.High.String()
	case SecurityDescriptorType:
		return v.SD.String()
	case TokenInformation, TokenAccessInformation:
		if v.Token == nil {
			return "no token"
		}
		return string(v.Token.User)
	}
	return fmt.Sprint(v.Uint)
}
