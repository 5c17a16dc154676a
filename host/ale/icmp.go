package ale

import (
	"context"
	"net/netip"
)

// An ICMPMessage is what names an ICMP flow besides the two addresses
// (ALE-LAY-11). The layers see its type as the local port and its code as the
// remote one (ALE-FLD-01).
type ICMPMessage struct {
	Type, Code uint8
	ID         uint16 // of an echo request or reply
}

// The echo messages of ICMP and ICMPv6.
const (
	icmpEchoReply, icmpEchoRequest     = 0, 8
	icmpv6EchoRequest, icmpv6EchoReply = 128, 129
)

// flow is the same for an echo request and its reply. The identifier counts for
// those only.
func (m ICMPMessage) flow() ICMPMessage {
	switch m.Type {
	case icmpEchoReply:
		m.Type = icmpEchoRequest
	case icmpv6EchoReply:
		m.Type = icmpv6EchoRequest
	case icmpEchoRequest, icmpv6EchoRequest:
	default:
		m.ID = 0
	}
	return m
}

// SendICMP is SendTo for a socket that sends ICMP messages.
func (s *Socket) SendICMP(ctx context.Context, remote netip.Addr, m ICMPMessage) (to netip.Addr, f *Flow, created bool, err error) {
	at, f, created, err := s.send(ctx, netip.AddrPortFrom(remote, uint16(m.Code)), &m)
	return at.Addr(), f, created, err
}

// ReceiveICMP is ReceiveFrom for a socket that receives ICMP messages.
func (s *Socket) ReceiveICMP(ctx context.Context, from netip.Addr, m ICMPMessage) (source netip.Addr, f *Flow, created bool, err error) {
	at, f, created, err := s.receive(ctx, netip.AddrPortFrom(from, uint16(m.Code)), &m)
	return at.Addr(), f, created, err
}
