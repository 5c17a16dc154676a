package nftgateway

import (
	"encoding/binary"
	"net"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// A reason is why a datagram goes nowhere, as ICMP says it.
type reason struct{ v4, v6 int }

var (
	prohibited = reason{13, 1} // EHOSTUNREACH, and EACCES with IPv6: as the rule set refuses
	portClosed = reason{3, 4}  // ECONNREFUSED
)

// The kernel's own limits of what it says by ICMP: the answers must not be a flood
// for whom somebody else claims to be.
const unreachablePerSecond, unreachableBurst = 1000, 50

func newUnreachable() *rate.Limiter { return rate.NewLimiter(unreachablePerSecond, unreachableBurst) }

// unreachable tells who sends a flow's datagrams that they go nowhere, at once instead
// of never.
func (g *Gateway) unreachable(e ends, why reason) {
	if !g.icmp.Allow() {
		return
	}
	if err := say(e, why); err != nil {
		g.mute.Do(func() { g.opts.Logf("nftgateway: who sends a datagram that is refused is not told: %v", err) })
	}
}

func say(e ends, why reason) error {
	network, m := "ip4:icmp", icmp.Message{Type: ipv4.ICMPTypeDestinationUnreachable, Code: why.v4}
	if e.from.Addr().Is6() {
		network, m = "ip6:ipv6-icmp", icmp.Message{Type: ipv6.ICMPTypeDestinationUnreachable, Code: why.v6}
	}
	headers, err := e.headers()
	if err != nil {
		return err
	}
	m.Body = &icmp.DstUnreach{Data: headers}
	b, err := m.Marshal(nil) // The kernel adds the checksum of IPv6.
	if err != nil {
		return err
	}
	c, err := net.DialIP(network, nil, &net.IPAddr{IP: e.from.Addr().AsSlice(), Zone: e.from.Addr().Zone()})
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write(b)
	return err
}

// headers are those of a datagram of the flow, by which its sender finds the socket.
// They are made anew, of an empty one: the ends are all that is looked at there.
func (e ends) headers() ([]byte, error) {
	const ttl, udpLen = 64, 8
	udp := binary.BigEndian.AppendUint16(nil, e.from.Port())
	udp = binary.BigEndian.AppendUint16(udp, e.to.Port())
	udp = binary.BigEndian.AppendUint16(udp, udpLen)
	udp = append(udp, 0, 0) // no checksum
	if e.from.Addr().Is6() {
		h := binary.BigEndian.AppendUint16([]byte{ipv6.Version << 4, 0, 0, 0}, udpLen)
		h = append(h, unix.IPPROTO_UDP, ttl)
		h = append(append(h, e.from.Addr().AsSlice()...), e.to.Addr().AsSlice()...)
		return append(h, udp...), nil
	}
	h := ipv4.Header{Version: ipv4.Version, Len: ipv4.HeaderLen, TotalLen: ipv4.HeaderLen + udpLen, TTL: ttl, Protocol: unix.IPPROTO_UDP,
		Src: e.from.Addr().AsSlice(), Dst: e.to.Addr().AsSlice()}
	b, err := h.Marshal()
	return append(b, udp...), err
}
