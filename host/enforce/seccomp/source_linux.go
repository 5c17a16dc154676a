//go:build amd64 || arm64

package seccomp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce/internal/routes"
	"golang.org/x/sys/unix"
)

// A choice is what a datagram says itself about where it comes from (IP_PKTINFO).
type choice struct {
	from   netip.Addr // not valid: it does not say; 0.0.0.0: from that of the device, even where its socket is bound
	device uint32     // 0: it does not say
}

// choose reads the choice of a datagram to an address of IPv4, or of IPv6, as the kernel does.
func choose(control []byte, v4 bool) (c choice) {
	messages, _ := unix.ParseSocketControlMessage(control) // See unrouted.
	for _, m := range messages {
		var from netip.Addr
		var device []byte
		switch is := [2]int32{m.Header.Level, m.Header.Type}; {
		case v4 && is == [2]int32{unix.SOL_IP, unix.IP_PKTINFO} && len(m.Data) >= unix.SizeofInet4Pktinfo:
			from, device = netip.AddrFrom4([4]byte(m.Data[4:8])), m.Data
		case (is == [2]int32{unix.SOL_IPV6, unix.IPV6_PKTINFO} || !v4 && is == [2]int32{unix.SOL_IPV6, unix.IPV6_2292PKTINFO}) && len(m.Data) >= unix.SizeofInet6Pktinfo:
			from, device = netip.AddrFrom16([16]byte(m.Data)).Unmap(), m.Data[16:]
		default:
			continue
		}
		if from.Is4() || !from.IsUnspecified() {
			c.from = from
		}
		if n := binary.NativeEndian.Uint32(device); n != 0 {
			c.device = n
		}
	}
	return c
}

// fixed returns control messages by which a datagram comes from where it was decided to. From an address
// of a link it goes to others by a device that only the kernel knows: that is left as it is.
func fixed(control []byte, from, to netip.Addr) []byte {
	switch {
	case from.IsUnspecified(), from.IsLinkLocalUnicast() && !from.Is4() && !ofLink(to):
		return control
	case from.Is4():
		return append(control, unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: from.As4()})...)
	}
	return append(control, unix.PktInfo6(&unix.Inet6Pktinfo{Addr: from.As16()})...)
}

// sameSource refuses a datagram of a connected socket that says it comes from elsewhere than was decided
// at connect().
func (w *worker) sameSource(m *message) unix.Errno {
	if len(m.control) == 0 || !w.decidesSource() {
		return 0
	}
	local, e := w.local()
	if e != 0 {
		return e
	}
	from := local.Addr().WithZone("")
	for _, v4 := range [...]bool{true, false} { // It may be connected anew meanwhile.
		switch c := choose(m.control, v4); {
		case !c.from.IsValid(), c.from == from:
		case c.from.IsUnspecified() && from.Is4():
			m.control = fixed(m.control, from, from)
		default:
			w.in.Remote = w.sock.peer()
			return w.denied(fmt.Errorf("seccomp: it is to come from %s (IP_PKTINFO), and its socket was decided to send from %s at connect()", c.from, from))
		}
	}
	return 0
}

// sourceOf is the ale.SourceFunc of the call's socket.
func (w *worker) sourceOf(_ context.Context, to netip.AddrPort) (netip.Addr, error) {
	if w.came.IsValid() {
		return w.came, nil
	}
	if a := w.chosen.from; a.IsValid() && !a.IsUnspecified() {
		return a, nil
	}
	bound, e := w.local()
	if e != 0 {
		return netip.Addr{}, callErr(e)
	}
	if a := bound.Addr(); !w.chosen.from.IsValid() && sends(a) {
		return a, nil
	}
	q, given, err := w.query(bound, to)
	if err != nil || given.IsValid() {
		return given, err
	}
	a, err := w.source(q)
	if errors.Is(err, ale.ErrNoRoute) {
		err = fmt.Errorf("%w: %w", ale.ErrNoRoute, callErr(errnoOf(err)))
	}
	return a, err
}

// sends reports whether a socket that is bound to an address sends from it: not where that is one of
// many, or none.
func sends(bound netip.Addr) bool {
	return !bound.IsUnspecified() && !bound.IsMulticast() && bound != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// query is what the kernel looks at when the call's socket sends to an address; or the
// address that its options give.
func (w *worker) query(bound, to netip.AddrPort) (q *routes.Query, given netip.Addr, err error) {
	w.enter()
	defer w.leave()
	redirected := to != w.in.Remote
	to = unmapped(to)
	a := to.Addr()
	q = &routes.Query{To: to, FromPort: bound.Port(), Protocol: uint8(w.sock.protocol), Device: w.chosen.device}
	var st unix.Stat_t
	if err := unix.Fstat(w.fd, &st); err != nil {
		return nil, given, err
	}
	q.User = st.Uid
	level, class, unicast := unix.SOL_IPV6, unix.IPV6_TCLASS, unix.IPV6_UNICAST_IF
	if a.Is4() {
		level, class, unicast = unix.SOL_IP, unix.IP_TOS, unix.IP_UNICAST_IF
	}
	option := func(level, name int) uint32 {
		var v int32
		_ = getOption(w.fd, level, name, &v) // What there is not is not set.
		return uint32(v)
	}
	q.Mark, q.TrafficClass = option(unix.SOL_SOCKET, unix.SO_MARK), uint8(option(level, class))
	if q.Device == 0 && !(redirected && a.IsLoopback()) { // See reachLoopback.
		q.Device = option(unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
	}
	switch {
	case !w.sock.datagram():
	case a.Is4() && a.IsMulticast():
		var group [4]byte // The device alone it does not tell.
		if getOption(w.fd, unix.SOL_IP, unix.IP_MULTICAST_IF, &group) == 0 && group != [4]byte{} {
			given = netip.AddrFrom4(group)
		}
	case q.Device == 0 && a.IsMulticast():
		q.Device = option(unix.SOL_IPV6, unix.IPV6_MULTICAST_IF)
	case q.Device == 0:
		q.Device = bits.ReverseBytes32(option(level, unicast)) // In network order.
	}
	return q, given, nil
}

// source answers a query for the network namespace of the call's socket.
func (w *worker) source(q *routes.Query) (netip.Addr, error) {
	switch netns(w.fd) {
	case 0:
		return netip.Addr{}, errors.New("the kernel, before Linux 5.14, does not say in which network namespace the socket is")
	case w.s.home:
		return w.s.routes.Source(q)
	}
	space, err := unix.IoctlRetInt(w.fd, unix.SIOCGSKNS)
	if err != nil {
		return netip.Addr{}, elsewhere(err)
	}
	t := routes.Table{Namespace: space}
	defer t.Close()
	a, err := t.Source(q)
	unix.Close(space)
	if err != nil && !errors.Is(err, ale.ErrNoRoute) {
		err = elsewhere(err)
	}
	return a, err
}

func elsewhere(err error) error {
	return fmt.Errorf("the socket is in a network namespace of its own, and to ask for the routes there takes root: %w", err)
}

// decidesSource reports whether filters test where datagrams of the call's socket come from.
func (w *worker) decidesSource() bool {
	tests := w.s.opts.ALE.TestsSource
	return tests(netip.AddrPortFrom(netip.IPv4Unspecified(), 0)) || w.sock.domain == unix.AF_INET6 && tests(netip.AddrPortFrom(netip.IPv6Unspecified(), 0))
}
