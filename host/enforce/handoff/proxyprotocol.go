package handoff

import (
	"encoding/binary"
	"hash/crc32"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

// Types of our own in the PROXY protocol, out of those that are anybody's.
const (
	TypeRecords proxyproto.PP2Type = 0xE0 // the sealed redirect records
	TypeContext proxyproto.PP2Type = 0xE1 // the callout's context
)

// introduceProxied says all there is to say at once: the PROXY protocol has no
// answer.
func introduceProxied(r *Request, to netip.AddrPort) (*exchange, error) {
	header, err := proxyHeader(r, to)
	if err != nil {
		return nil, &Error{Kind: ProxyProtocol, Why: "was not told: " + err.Error()}
	}
	return &exchange{out: header}, nil
}

func proxyHeader(r *Request, to netip.AddrPort) ([]byte, error) {
	from := netip.AddrPortFrom(r.Source.Addr().Unmap().WithZone(""), r.Source.Port())
	if from.Addr().Is4() != to.Addr().Is4() || !from.IsValid() { // It has one family for both.
		from = netip.AddrPortFrom(netip.IPv6Unspecified(), from.Port())
		if to.Addr().Is4() {
			from = netip.AddrPortFrom(netip.IPv4Unspecified(), from.Port())
		}
	}
	h := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(from), net.TCPAddrFromAddrPort(to))
	var tlvs []proxyproto.TLV
	for _, t := range []proxyproto.TLV{
		{Type: proxyproto.PP2_TYPE_AUTHORITY, Value: []byte(r.Authority)}, {Type: proxyproto.PP2_TYPE_UNIQUE_ID, Value: r.UniqueID},
		{Type: TypeRecords, Value: r.Records}, {Type: TypeContext, Value: r.Context},
	} {
		if len(t.Value) > 0 {
			tlvs = append(tlvs, t)
		}
	}
	// The checksum is the last, so that it stands at the end.
	if err := h.SetTLVs(append(tlvs, proxyproto.TLV{Type: proxyproto.PP2_TYPE_CRC32C, Value: make([]byte, 4)})); err != nil {
		return nil, err
	}
	b, err := h.Format()
	if err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b, nil
}
