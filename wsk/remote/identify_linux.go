package remote

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/transport"
)

// States of a TCP socket in the kernel's numbers.
const (
	tcpTimeWait = 6
	tcpClose    = 7
)

// A tcpSocket is what the kernel says of a descriptor. Nothing of it comes from
// the client.
type tcpSocket struct {
	cookie        uint64 // names the socket as long as the system runs
	state         uint8
	mptcp         bool
	local, remote netip.AddrPort // remote is not valid if there is none (any more)
	device        int            // that it is bound to, as one with a link-local address is; 0: to none
}

// cookie is the kernel's name for a socket.
func cookie(fd int) (uint64, error) {
	n, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return 0, &StatusError{Status: ntstatus.InvalidHandle, Why: fmt.Sprintf("the descriptor is no socket: %v", err)}
	}
	return n, nil
}

// identify asks the kernel what a socket is. Those of another network namespace
// are refused: their addresses mean something else.
func identify(fd int) (s tcpSocket, err error) {
	refuse := func(st ntstatus.Status, format string, args ...any) (tcpSocket, error) {
		return s, &StatusError{Status: st, Why: fmt.Sprintf(format, args...)}
	}
	if s.cookie, err = cookie(fd); err != nil {
		return s, err
	}
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	protocol, perr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	s.mptcp = protocol == unix.IPPROTO_MPTCP // as Go's listeners are
	if err != nil || perr != nil || domain != unix.AF_INET && domain != unix.AF_INET6 || protocol != unix.IPPROTO_TCP && !s.mptcp {
		return refuse(ntstatus.NotSupported, "the socket is not TCP over IPv4 or IPv6: family %d, protocol %d", domain, protocol)
	}
	netns, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil || netns != ownNetns() {
		return refuse(ntstatus.AccessDenied, "the socket is of another network namespace than the service")
	}
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return refuse(ntstatus.InvalidHandle, "the socket has no state: %v", err)
	}
	s.state = info.State
	if s.device, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX); err != nil {
		return refuse(ntstatus.InvalidHandle, "the socket does not tell its device: %v", err)
	}
	if name, err := unix.Getsockname(fd); err == nil {
		s.local = address(name)
	}
	if name, err := unix.Getpeername(fd); err == nil { // Else it has no peer (any more).
		s.remote = address(name)
	}
	return s, nil
}

func address(name unix.Sockaddr) netip.AddrPort {
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(transport.WithScope(netip.AddrFrom16(a.Addr), a.ZoneId), uint16(a.Port))
	}
	return netip.AddrPort{}
}
