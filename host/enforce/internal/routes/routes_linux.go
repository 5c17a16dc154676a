// Package routes asks the kernel which address it would send from.
package routes

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"

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

// A Table is the routes of one network namespace, opened when they are first asked. It takes a
// descriptor then, and no rights for those of this process's own. The zero value is that. It is
// safe for concurrent use.
type Table struct {
	// Namespace is a descriptor of another one, which is entered with CAP_SYS_ADMIN; 0: this process's own.
	Namespace int

	mu     sync.Mutex
	conn   *netlink.Conn // nil: nobody has asked
	raw    syscall.RawConn
	asked  uint32 // how many times
	answer [8192]byte
	closed bool
}

func (t *Table) open() error {
	switch {
	case t.closed:
		return unasked(net.ErrClosed)
	case t.conn != nil:
		return nil
	}
	c, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: t.Namespace})
	if err != nil {
		return unasked(err)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		c.Close()
		return unasked(err)
	}
	t.conn, t.raw = c, raw
	return nil
}

// Close gives the descriptor back, and does not need Namespace any more. Who asks later is told that it is closed.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.conn != nil {
		t.conn.Close()
	}
}

func unasked(err error) error { return fmt.Errorf("the kernel's routes cannot be asked: %w", err) }

// Source is the address that the kernel would choose, 0.0.0.0 where the device has none. That
// there is no route is an error that wraps ale.ErrNoRoute and what connect() would say.
func (t *Table) Source(q *Query) (netip.Addr, error) {
	request, err := q.message()
	if err != nil {
		return netip.Addr{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	m, err := t.execute(request)
	if err != nil {
		return netip.Addr{}, err
	}
	if m.Header.Type != unix.RTM_NEWROUTE || len(m.Data) < unix.SizeofRtMsg {
		return netip.Addr{}, errors.New("the kernel does not say which route there is")
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

// execute is what netlink.Conn has under that name, without the scheduler: the kernel has answered
// when the request is written, and to be woken takes a worker of package seccomp, which has a thread of
// its own, many times as long.
func (t *Table) execute(request []byte) (m netlink.Message, err error) {
	if err := t.open(); err != nil {
		return m, err
	}
	t.asked++
	m.Header = netlink.Header{Length: uint32(unix.SizeofNlMsghdr + len(request)), Type: unix.RTM_GETROUTE, Flags: netlink.Request, Sequence: t.asked}
	m.Data = request
	b, err := m.MarshalBinary()
	if err != nil {
		return m, unasked(err)
	}
	failed := t.raw.Control(func(fd uintptr) {
		if _, err = uninterrupted(func() (int, error) { return unix.Write(int(fd), b) }); err != nil {
			return
		}
		for answered := false; err == nil && !answered; answered = m.Header.Sequence == t.asked {
			var n int
			if n, err = uninterrupted(func() (int, error) { return unix.Read(int(fd), t.answer[:]) }); err == nil {
				err = m.UnmarshalBinary(t.answer[:n])
			}
		}
	})
	if err = cmp.Or(err, failed); err != nil {
		return m, unasked(err)
	}
	if m.Header.Type == netlink.Error && len(m.Data) >= 4 {
		return m, fmt.Errorf("%w: %w", ale.ErrNoRoute, unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data))))
	}
	return m, nil
}

func uninterrupted(call func() (int, error)) (n int, err error) {
	for n, err = call(); err == unix.EINTR; {
		n, err = call()
	}
	return n, err
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
