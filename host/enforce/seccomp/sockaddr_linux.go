//go:build amd64 || arm64

package seccomp

import (
	"encoding/binary"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	sockaddrLen  = 128 // struct sockaddr_storage
	sockaddr4Len = 16  // struct sockaddr_in
	sockaddr6Len = 28  // struct sockaddr_in6
	sockaddr6Min = 24  // SIN6_LEN_RFC2133: without the scope
)

// nowhere is an address that no TCP socket can connect to: a family and no more.
var nowhere = binary.NativeEndian.AppendUint16(nil, unix.AF_INET)

// disconnect is the address that ends a TCP connection with a reset, and leaves a datagram
// socket without a peer.
var disconnect = make([]byte, sockaddr4Len)

// family returns the family of an address, AF_UNSPEC if it has none.
func family(sa []byte) uint16 {
	if len(sa) < 2 {
		return unix.AF_UNSPEC
	}
	return binary.NativeEndian.Uint16(sa)
}

// parse reads an address as a socket of the given domain does, with its errors.
func parse(domain int32, sa []byte) (netip.AddrPort, unix.Errno) {
	need := sockaddr4Len
	if domain == unix.AF_INET6 {
		need = sockaddr6Min
	}
	switch {
	case len(sa) < need:
		return netip.AddrPort{}, unix.EINVAL
	case int32(family(sa)) != domain:
		return netip.AddrPort{}, unix.EAFNOSUPPORT
	}
	return address(sa), 0
}

// address reads a sockaddr_in or sockaddr_in6. A v4-mapped address stays one. One of a
// link is in the zone that the scope numbers; of others the kernel does not read it.
func address(sa []byte) netip.AddrPort {
	port := binary.BigEndian.Uint16(sa[2:])
	if family(sa) == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(sa[4:8])), port)
	}
	a := netip.AddrFrom16([16]byte(sa[8:24]))
	if len(sa) >= sockaddr6Len && ofLink(a) {
		if scope := binary.NativeEndian.Uint32(sa[24:]); scope != 0 {
			a = a.WithZone(strconv.FormatUint(uint64(scope), 10))
		}
	}
	return netip.AddrPortFrom(a, port)
}

// ofLink reports whether an address means something on one link only.
func ofLink(a netip.Addr) bool {
	return !a.Is4In6() && (a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() || a.IsInterfaceLocalMulticast())
}

// putSockaddr writes an address for a socket of the given domain into b, which
// has room for sockaddr6Len bytes. What does not fit the domain the kernel refuses.
func putSockaddr(b []byte, domain int32, to netip.AddrPort) []byte {
	if a := to.Addr(); domain == unix.AF_INET && a.Unmap().Is4() {
		a4 := a.As4()
		b = b[:sockaddr4Len]
		clear(b)
		copy(b[4:], a4[:])
		binary.NativeEndian.PutUint16(b, unix.AF_INET)
	} else {
		a16 := a.As16()
		b = b[:sockaddr6Len]
		clear(b)
		copy(b[8:], a16[:])
		scope, _ := strconv.ParseUint(a.Zone(), 10, 32) // ale has made numbers of names.
		binary.NativeEndian.PutUint32(b[24:], uint32(scope))
		binary.NativeEndian.PutUint16(b, unix.AF_INET6)
	}
	binary.BigEndian.PutUint16(b[2:], to.Port())
	return b
}

// concrete writes into sa, where the program named no address, the one that the kernel
// takes instead: for IPv4 the socket's own, else loopback; and no link, that of its device.
// So what is decided is where it goes.
func (w *worker) concrete(sa []byte, to netip.AddrPort) netip.AddrPort {
	if a := to.Addr(); ofLink(a) && a.Zone() == "" {
		return w.onLink(sa, to)
	}
	if !to.Addr().Unmap().IsUnspecified() {
		return to
	}
	a, local := netip.IPv6Loopback(), w.sock.local.Addr().Unmap()
	if to.Addr().Unmap().Is4() && local.Is4() && !local.IsUnspecified() {
		a = local
	} else if to.Addr().Unmap().Is4() || local.Is4() { // A socket of IPv4, or bound to a mapped address.
		a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	if family(sa) == unix.AF_INET6 {
		a = netip.AddrFrom16(a.As16())
		copy(sa[8:24], a.AsSlice())
	} else {
		copy(sa[4:8], a.AsSlice())
		if to.Addr().Is4In6() { // An IPv4 address for a socket of IPv6.
			a = netip.AddrFrom16(a.As16())
		}
	}
	return netip.AddrPortFrom(a, to.Port())
}

// onLink is an address of a link that the program did not name: that of the device that its
// socket is bound to, if it is.
func (w *worker) onLink(sa []byte, to netip.AddrPort) netip.AddrPort {
	var device int32
	w.enter()
	_ = getOption(w.fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, &device)
	w.leave()
	if device <= 0 {
		return to
	}
	if len(sa) >= sockaddr6Len {
		binary.NativeEndian.PutUint32(sa[24:], uint32(device))
	}
	return netip.AddrPortFrom(to.Addr().WithZone(strconv.Itoa(int(device))), to.Port())
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
