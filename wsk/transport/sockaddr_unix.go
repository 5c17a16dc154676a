//go:build unix && !solaris

package transport

import (
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

func (s *Socket) sockaddr(a netip.AddrPort) (unix.Sockaddr, error) {
	if s.v4 {
		if !a.Addr().Is4() {
			return nil, fmt.Errorf("%s is no address of an IPv4 socket: %w", a, syscall.EAFNOSUPPORT)
		}
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, nil
	}
	if a.Addr().Is4() {
		return nil, fmt.Errorf("%s is no address of an IPv6 socket: %w", a, syscall.EAFNOSUPPORT)
	}
	scope, err := ScopeID(a.Addr())
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: scope}, err
}

// addrPort reads what package syscall answers: package unix asks the system for the
// protocol too.
func addrPort(sa syscall.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(WithScope(netip.AddrFrom16(sa.Addr), sa.ZoneId), uint16(sa.Port))
	}
	return netip.AddrPort{}
}
