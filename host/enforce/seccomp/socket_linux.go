//go:build amd64 || arm64

package seccomp

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What touches a program's memory, or locks its socket, tells the Go scheduler: the
// program can hold the call up, by a page that it serves itself (userfaultfd, FUSE),
// and would stop this process. Raw are only calls that it cannot.

func sysConnect(fd int, sa []byte) unix.Errno {
	_, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(sa))), uintptr(len(sa)))
	return e
}

// getOption reads an option of the size of v.
func getOption[T any](fd, level, opt int, v *T) unix.Errno {
	n := uint32(unsafe.Sizeof(*v))
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt), uintptr(unsafe.Pointer(v)), uintptr(unsafe.Pointer(&n)), 0)
	return e
}

func setOption[T any](fd, level, opt int, v *T) unix.Errno {
	_, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt), uintptr(unsafe.Pointer(v)), unsafe.Sizeof(*v), 0)
	return e
}

// getName is getsockname. An INET socket answers with an address, which is a v4-mapped one
// where it is of IPv6 and bound to IPv4 (ALE-LAY-17), any family with its number.
func getName(fd int) (domain int, local netip.AddrPort, e unix.Errno) {
	return nameBy(unix.SYS_GETSOCKNAME, fd)
}

// peer is whom the socket is connected to, as plainPeer writes it.
func (s *socket) peer() netip.AddrPort {
	_, addr, _ := nameBy(unix.SYS_GETPEERNAME, s.fd)
	return plainPeer(addr)
}

// plainPeer is a peer without its link, which not every address of it names. The kernel names
// none that has no port, as it names none of a socket that has no peer.
func plainPeer(a netip.AddrPort) netip.AddrPort {
	if a.Port() == 0 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

func nameBy(call uintptr, fd int) (domain int, name netip.AddrPort, e unix.Errno) {
	var b [sockaddr6Len]byte
	n := uint32(len(b))
	_, _, e = unix.Syscall(call, uintptr(fd), uintptr(unsafe.Pointer(&b)), uintptr(unsafe.Pointer(&n)))
	if e != 0 {
		return 0, netip.AddrPort{}, e
	}
	domain = int(family(b[:]))
	if domain == unix.AF_INET || domain == unix.AF_INET6 {
		name = address(b[:])
	}
	return domain, name, 0
}

// A socket is what a descriptor of the program turned out to be.
type socket struct {
	fd                     int // in this process
	domain, kind, protocol int32
	cookie                 uint64
	local                  netip.AddrPort
}

// look fills s. A descriptor that is no socket gives ENOTSOCK, and EBADF for O_PATH.
func (s *socket) look(fd int) unix.Errno {
	*s = socket{fd: fd}
	domain, local, e := getName(fd)
	if e != 0 { // Some families have no names.
		if e := getOption(fd, unix.SOL_SOCKET, unix.SO_DOMAIN, &s.domain); e != 0 {
			return e
		}
	} else {
		s.domain, s.local = int32(domain), local
	}
	if s.domain != unix.AF_INET && s.domain != unix.AF_INET6 {
		return 0
	}
	if e := getOption(fd, unix.SOL_SOCKET, unix.SO_TYPE, &s.kind); e != 0 {
		return e
	}
	if e := getOption(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL, &s.protocol); e != 0 {
		return e
	}
	return getOption(fd, unix.SOL_SOCKET, unix.SO_COOKIE, &s.cookie)
}

// look looks at the socket of the call.
func (w *worker) look() unix.Errno {
	w.enter()
	e := w.sock.look(w.fd)
	w.leave()
	return e
}

// local returns the address that the connections of the call's socket have now.
func (w *worker) local() (netip.AddrPort, unix.Errno) {
	local, e := w.bound()
	return unmapped(local), e
}

// bound returns the address that the socket of the call has now.
func (w *worker) bound() (netip.AddrPort, unix.Errno) {
	w.enter()
	_, local, e := getName(w.fd)
	w.leave()
	return local, e
}

func (s *socket) inet() bool { return s.domain == unix.AF_INET || s.domain == unix.AF_INET6 }

// datagram reports a UDP or ping socket.
func (s *socket) datagram() bool {
	return s.inet() && s.kind == unix.SOCK_DGRAM &&
		(s.protocol == unix.IPPROTO_UDP || s.protocol == unix.IPPROTO_ICMP || s.protocol == unix.IPPROTO_ICMPV6)
}

func (s *socket) tcp() bool {
	return s.inet() && s.kind == unix.SOCK_STREAM && s.protocol == unix.IPPROTO_TCP
}

func (s *socket) blocking() bool {
	flags, _, e := unix.RawSyscall(unix.SYS_FCNTL, uintptr(s.fd), unix.F_GETFL, 0)
	return e == 0 && flags&unix.O_NONBLOCK == 0
}

// netns returns the cookie of the network namespace that a socket belongs to, 0
// before Linux 5.14.
func netns(fd int) (cookie uint64) {
	_ = getOption(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE, &cookie)
	return cookie
}

// reachLoopback frees a socket from its interface, from which a redirect to
// loopback would get lost.
func (w *worker) reachLoopback() unix.Errno {
	var device int32
	const lo = 1 // in every namespace
	w.enter()
	defer w.leave()
	if _ = getOption(w.fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, &device); device <= 0 || device == lo {
		return 0
	}
	device = 0
	return setOption(w.fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, &device)
}

// States of tcp_states.h.
const (
	tcpEstablished = 1
	tcpSynSent     = 2
	tcpClose       = 7
)

func (w *worker) tcpState() byte {
	state := [1]byte{tcpSynSent}
	w.enter()
	getOption(w.fd, unix.IPPROTO_TCP, unix.TCP_INFO, &state)
	w.leave()
	return state[0]
}
