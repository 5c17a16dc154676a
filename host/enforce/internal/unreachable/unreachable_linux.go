// Package unreachable tells those who send datagrams that these go nowhere, by ICMP, as
// the kernel does for what it refuses itself. It needs root.
package unreachable

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// A Reason is why a datagram goes nowhere, as ICMP says it.
type Reason struct{ v4, v6 int }

var (
	Prohibited = Reason{13, 1} // EHOSTUNREACH, and EACCES with IPv6
	PortClosed = Reason{3, 4}  // ECONNREFUSED
)

// The kernel's own limits of what it says by ICMP: the answers must not be a flood
// for whom somebody else claims to be.
const perSecond, burst = 1000, 50

// A Teller tells who sends datagrams that they go nowhere, at once instead of never.
type Teller struct {
	logf  func(format string, args ...any)
	limit *rate.Limiter
	mute  sync.Once
}

// New returns a Teller that says to logf, once, why it cannot tell.
func New(logf func(format string, args ...any)) *Teller {
	return &Teller{logf: logf, limit: rate.NewLimiter(perSecond, burst)}
}

// Tell tells who sends from one address that to another nothing goes. Both are of one
// family, v4 not mapped.
func (t *Teller) Tell(from, to netip.AddrPort, why Reason) {
	if !t.limit.Allow() {
		return
	}
	if err := say(from, to, why); err != nil {
		t.mute.Do(func() { t.logf("who sends a datagram that is refused is not told: %v", err) })
	}
}

func say(from, to netip.AddrPort, why Reason) error {
	network, m := "ip4:icmp", icmp.Message{Type: ipv4.ICMPTypeDestinationUnreachable, Code: why.v4}
	if from.Addr().Is6() {
		network, m = "ip6:ipv6-icmp", icmp.Message{Type: ipv6.ICMPTypeDestinationUnreachable, Code: why.v6}
	}
	headers, err := headers(from, to)
	if err != nil {
		return err
	}
	m.Body = &icmp.DstUnreach{Data: headers}
	b, err := m.Marshal(nil) // The kernel adds the checksum of IPv6.
	if err != nil {
		return err
	}
	c, err := net.DialIP(network, nil, &net.IPAddr{IP: from.Addr().AsSlice(), Zone: from.Addr().Zone()})
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write(b)
	return err
}

// headers are those of a datagram, by which its sender finds the socket.
// They are made anew, of an empty one: the ends are all that is looked at there.
func headers(from, to netip.AddrPort) ([]byte, error) {
	const ttl, udpLen = 64, 8
	udp := binary.BigEndian.AppendUint16(nil, from.Port())
	udp = binary.BigEndian.AppendUint16(udp, to.Port())
	udp = binary.BigEndian.AppendUint16(udp, udpLen)
	udp = append(udp, 0, 0) // no checksum
	if from.Addr().Is6() {
		h := binary.BigEndian.AppendUint16([]byte{ipv6.Version << 4, 0, 0, 0}, udpLen)
		h = append(h, unix.IPPROTO_UDP, ttl)
		h = append(append(h, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
		return append(h, udp...), nil
	}
	h := ipv4.Header{Version: ipv4.Version, Len: ipv4.HeaderLen, TotalLen: ipv4.HeaderLen + udpLen, TTL: ttl, Protocol: unix.IPPROTO_UDP,
		Src: from.Addr().AsSlice(), Dst: to.Addr().AsSlice()}
	b, err := h.Marshal()
	return append(b, udp...), err
}
