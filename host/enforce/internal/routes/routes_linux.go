// Package routes asks the kernel which address it would send from.
package routes

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/ale"
)

// A Query is what the kernel looks at when it chooses a route for a socket that has no address.
type Query struct {
	To           netip.AddrPort // the zone of an address of a link is a number
	FromPort     uint16         // 0: not known yet
	Protocol     uint8          // of TCP, UDP, ICMP or ICMPv6
	Device       uint32         // that it has to leave by; 0: any
	Mark         uint32         // SO_MARK
	User         uint32         // the socket's owner
	TrafficClass uint8          // IP_TOS, IPV6_TCLASS
}

// A Table is the routes of one network namespace. It takes a descriptor, and no rights. It is safe for
// concurrent use.
type Table struct{ conn *netlink.Conn }

// Open opens the routes of a network namespace, by a descriptor; 0: of this process's own. To
// enter another one takes CAP_SYS_ADMIN.
func Open(namespace int) (*Table, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: namespace})
	if err != nil {
		return nil, fmt.Errorf("the kernel's routes cannot be asked: %w", err)
	}
	return &Table{c}, nil
}

// Close gives the descriptor back.
func (t *Table) Close() error { return t.conn.Close() }

// Source is the address that the kernel would choose, 0.0.0.0 where the device has none. That
// there is no route is an error that wraps ale.ErrNoRoute and what connect() would say.
func (t *Table) Source(q *Query) (netip.Addr, error) {
	request, err := q.message()
	if err != nil {
		return netip.Addr{}, err
	}
	answers, err := t.conn.Execute(netlink.Message{Header: netlink.Header{Type: unix.RTM_GETROUTE, Flags: netlink.Request}, Data: request})
	if err != nil {
		return netip.Addr{}, q.failed(err)
	}
	for _, m := range answers {
		if m.Header.Type != unix.RTM_NEWROUTE || len(m.Data) < unix.SizeofRtMsg {
			continue
		}
		ad, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofRtMsg:])
		if err != nil {
			return netip.Addr{}, err
		}
		for ad.Next() {
			if ad.Type() != unix.RTA_PREFSRC {
				continue
			}
			if a, ok := netip.AddrFromSlice(ad.Bytes()); ok {
				return a, nil
			}
		}
		return q.none(ad.Err())
	}
	return netip.Addr{}, errors.New("the kernel does not say which route there is")
}

// none is what there is where a route has no address to send from.
func (q *Query) none(err error) (netip.Addr, error) {
	switch {
	case err != nil:
		return netip.Addr{}, err
	case q.To.Addr().Is4():
		return netip.IPv4Unspecified(), nil
	}
	return netip.Addr{}, fmt.Errorf("%w: %w", ale.ErrNoRoute, unix.EADDRNOTAVAIL)
}

// failed tells what the kernel answered from what kept it from answering.
func (q *Query) failed(err error) error {
	if op, ok := errors.AsType[*netlink.OpError](err); ok {
		if errno, ok := op.Err.(unix.Errno); ok { // Of the answer: those of system calls are wrapped.
			return fmt.Errorf("%w: %w", ale.ErrNoRoute, errno)
		}
	}
	return fmt.Errorf("the kernel's routes cannot be asked: %w", err)
}

// message is a struct rtmsg with its attributes.
func (q *Query) message() ([]byte, error) {
	a, device := q.To.Addr(), q.Device
	header := make([]byte, unix.SizeofRtMsg)
	header[0] = unix.AF_INET6
	if a.Is4() {
		header[0] = unix.AF_INET
	}
	const dscp = 0xfc
	header[1], header[3] = byte(a.BitLen()), q.TrafficClass&dscp
	if zone := a.Zone(); zone != "" {
		n, err := strconv.ParseUint(zone, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%w: there is no link %q: %w", ale.ErrNoRoute, zone, unix.ENODEV)
		}
		device = uint32(n)
	}
	ae := netlink.NewAttributeEncoder()
	ae.Bytes(unix.RTA_DST, a.AsSlice())
	ae.Uint32(unix.RTA_UID, q.User)
	ae.Uint8(unix.RTA_IP_PROTO, q.Protocol)
	if device != 0 {
		ae.Uint32(unix.RTA_OIF, device)
	}
	if q.Mark != 0 {
		ae.Uint32(unix.RTA_MARK, q.Mark)
	}
	for kind, port := range map[uint16]uint16{unix.RTA_SPORT: q.FromPort, unix.RTA_DPORT: q.To.Port()} {
		if port != 0 && q.Protocol != unix.IPPROTO_ICMP && q.Protocol != unix.IPPROTO_ICMPV6 {
			ae.Bytes(kind, binary.BigEndian.AppendUint16(nil, port))
		}
	}
	b, err := ae.Encode()
	return append(header, b...), err
}
