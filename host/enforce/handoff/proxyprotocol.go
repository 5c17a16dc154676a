package handoff

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"net/netip"
)

// A Type is that of a TLV of the PROXY protocol.
type Type byte

// The types that a proxy may be told. The last two are of our own, out of those
// that are anybody's.
const (
	TypeAuthority Type = 0x02 // PP2_TYPE_AUTHORITY
	TypeCRC32C    Type = 0x03 // PP2_TYPE_CRC32C
	TypeUniqueID  Type = 0x05 // PP2_TYPE_UNIQUE_ID
	TypeRecords   Type = 0xE0 // the sealed redirect records
	TypeContext   Type = 0xE1 // the callout's context
)

const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyCommand   = 0x21 // version 2, PROXY
	tcpOverIPv4    = 0x11
	tcpOverIPv6    = 0x21
)

// introduceProxied says all there is to say at once: the PROXY protocol has no
// answer.
func introduceProxied(r *Request, to netip.AddrPort) (*exchange, error) {
	from := netip.AddrPortFrom(r.Source.Addr().Unmap().WithZone(""), r.Source.Port())
	if from.Addr().Is4() != to.Addr().Is4() || !from.IsValid() { // It has one family for both.
		from = netip.AddrPortFrom(netip.IPv6Unspecified(), from.Port())
		if to.Addr().Is4() {
			from = netip.AddrPortFrom(netip.IPv4Unspecified(), from.Port())
		}
	}
	family := byte(tcpOverIPv6)
	if to.Addr().Is4() {
		family = tcpOverIPv4
	}
	b := append([]byte(proxySignature), proxyCommand, family, 0, 0)
	head := len(b)
	b = append(append(b, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, from.Port()), to.Port())
	b = appendTLV(b, TypeAuthority, []byte(r.Authority))
	b = appendTLV(b, TypeUniqueID, r.UniqueID)
	b = appendTLV(b, TypeRecords, r.Records)
	b = appendTLV(b, TypeContext, r.Context)
	b = appendTLV(b, TypeCRC32C, make([]byte, crc32.Size)) // The last, so that it stands at the end.
	if len(b)-head > math.MaxUint16 {
		return nil, &Error{Kind: ProxyProtocol, Why: fmt.Sprintf("was not told: records and context make %d bytes, and a header has at most %d", len(b)-head, math.MaxUint16)}
	}
	binary.BigEndian.PutUint16(b[head-2:], uint16(len(b)-head))
	binary.BigEndian.PutUint32(b[len(b)-crc32.Size:], crc32.Checksum(b, castagnoli))
	return &exchange{out: b}, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendTLV adds what is known. A value that is too long makes a header that is,
// too.
func appendTLV(b []byte, t Type, value []byte) []byte {
	if len(value) == 0 {
		return b
	}
	return append(binary.BigEndian.AppendUint16(append(b, byte(t)), uint16(len(value))), value...)
}
