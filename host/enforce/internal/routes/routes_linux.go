// Package routes asks the kernel which address it would send from.
package routes

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce/internal/netspace"
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
	socket int    // 0: nobody has asked
	asked  uint32 // how many times
	answer [8192]byte
	closed bool
}

func (t *Table) open() (err error) {
	switch {
	case t.closed:
		return unasked(net.ErrClosed)
	case t.socket != 0:
		return nil
	}
	var fd int
	socket := func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
		return err
	}
	if t.Namespace == 0 {
		err = socket()
	} else {
		err = netspace.Within(t.Namespace, socket)
	}
	if err != nil {
		return unasked(err)
	}
	t.socket = fd
	return nil
}

// Close gives the descriptor back, and does not need Namespace any more. Who asks later is told that it is closed.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.socket != 0 {
		unix.Close(t.socket)
		t.socket = 0
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
	if m.Header.Type != unix.RTM_NEWROUTE {
		return netip.Addr{}, errors.New("the kernel does not say which route there is")
	}
	attributes, err := syscall.ParseNetlinkRouteAttr(m)
	if err != nil {
		return netip.Addr{}, unasked(err)
	}
	for _, has := range attributes {
		if has.Attr.Type != unix.RTA_PREFSRC {
			continue
		}
		if a, ok := netip.AddrFromSlice(has.Value); ok {
			return a, nil
		}
	}
	return q.none()
}

// execute writes a request and reads the answer, which the kernel has made by then: nobody waits.
func (t *Table) execute(request []byte) (*syscall.NetlinkMessage, error) {
	if err := t.open(); err != nil {
		return nil, err
	}
	t.asked++
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(request)))
	b = binary.NativeEndian.AppendUint16(b, unix.RTM_GETROUTE)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, t.asked)
	b = append(binary.NativeEndian.AppendUint32(b, 0), request...)
	if _, err := uninterrupted(func() (int, error) { return unix.Write(t.socket, b) }); err != nil {
		return nil, unasked(err)
	}
	for {
		n, err := uninterrupted(func() (int, error) { return unix.Read(t.socket, t.answer[:]) })
		if err != nil {
			return nil, unasked(err)
		}
		messages, err := syscall.ParseNetlinkMessage(t.answer[:n])
		if err != nil {
			return nil, unasked(err)
		}
		for i := range messages {
			m := &messages[i]
			switch {
			case m.Header.Seq != t.asked: // Nobody took it when it came.
			case m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4:
				return nil, fmt.Errorf("%w: %w", ale.ErrNoRoute, unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data))))
			default:
				return m, nil
			}
		}
	}
}

func uninterrupted(call func() (int, error)) (n int, err error) {
	for n, err = call(); err == unix.EINTR; {
		n, err = call()
	}
	return n, err
}

// none is what there is where a route has no address to send from.
func (q *Query) none() (netip.Addr, error) {
	if q.To.Addr().Is4() {
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
	number := func(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
	b := attribute(header, unix.RTA_DST, a.AsSlice())
	b = attribute(b, unix.RTA_UID, number(q.User))
	b = attribute(b, unix.RTA_IP_PROTO, []byte{q.Protocol})
	if device != 0 {
		b = attribute(b, unix.RTA_OIF, number(device))
	}
	if q.Mark != 0 {
		b = attribute(b, unix.RTA_MARK, number(q.Mark))
	}
	for kind, port := range map[uint16]uint16{unix.RTA_SPORT: q.FromPort, unix.RTA_DPORT: q.To.Port()} {
		if port != 0 && q.Protocol != unix.IPPROTO_ICMP && q.Protocol != unix.IPPROTO_ICMPV6 {
			b = attribute(b, kind, binary.BigEndian.AppendUint16(nil, port))
		}
	}
	return b, nil
}

// attribute appends a struct rtattr, which begins at a multiple of four.
func attribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, -len(b)&(unix.RTA_ALIGNTO-1))...)
}
