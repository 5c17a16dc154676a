//go:build amd64 || arm64

package seccomp

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"time"
	"unsafe"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
	"golang.org/x/sys/unix"
)

// connect answers one notification. The order of the checks is the kernel's.
func (s *supervisor) connect(n *notif) {
	tid := int(n.TID)
	pidfd, err := openThread(tid)
	if err != nil {
		s.fail(n, "open the thread", err)
		return
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, int(int32(n.Data.Args[0])), 0)
	if err != nil {
		s.fail(n, "get the socket", err)
		return
	}
	closeFD := true
	defer func() {
		if closeFD {
			unix.Close(fd)
		}
	}()
	length := int32(n.Data.Args[2])
	var buf [128]byte // struct sockaddr_storage
	if length < 0 || int(length) > len(buf) {
		s.reply(n.ID, unix.EINVAL)
		return
	}
	sa := buf[:length]
	if e := readMemory(tid, n.Data.Args[1], sa); e != 0 {
		s.fail(n, "read the address", e)
		return
	}
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil { // ENOTSOCK, or EBADF for O_PATH.
		s.reply(n.ID, errnoOf(err))
		return
	}
	ep := &endpoint{fd: fd, domain: domain, sa: sa}
	pid, uid, known := identify(pidfd, tid)
	ep.in = fwps.Incoming{Protocol: fwps.ProtocolTCP, ProcessID: pid, UserID: uid, UserKnown: known, AppID: program(pid)}
	if !idValid(s.fd, n.ID) { // All of the above may have been about a thread that took over the number.
		return
	}
	switch domain {
	case unix.AF_INET, unix.AF_INET6:
	case unix.AF_UNIX, unix.AF_NETLINK, unix.AF_PACKET, unix.AF_ALG, unix.AF_KEY:
		s.proceed(n.ID) // The credentials and the working directory must be the program's.
		return
	default:
		s.refuse(n, ep, errors.New("seccomp: this address family cannot be decided on"))
		return
	}
	kind, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	protocol, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	switch {
	case kind == unix.SOCK_STREAM && protocol == unix.IPPROTO_TCP:
	case kind == unix.SOCK_DGRAM || kind == unix.SOCK_RAW:
		// UDP, ping, raw: not classified yet. A connect only sets an address.
		s.reply(n.ID, sysConnect(fd, sa))
		return
	default: // Inherited: the filter lets nobody make one.
		s.reply(n.ID, unix.EPROTONOSUPPORT)
		return
	}
	if len(sa) >= 2 && binary.NativeEndian.Uint16(sa) == unix.AF_UNSPEC {
		s.reply(n.ID, sysConnect(fd, sa)) // Disconnect. It does not wait for a connect under way.
		return
	}
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		s.fail(n, "identify the socket", err)
		return
	}
	ep.in.EndpointID = cookie
	c := call{n.Data.IP, n.Data.Args, cookie}
	o := s.begin(n, fd)
	closeFD, ep.op = false, o
	o.connecting(time.Now()) // A restarted call waits here for its connect.
	unlock := s.lock(cookie)
	defer unlock()
	o.connecting(time.Time{})
	errno, ok := s.restarted(n.TID, c)
	if !ok || errno == 0 && sysConnect(fd, nowhere) != unix.EISCONN { // Disconnected since.
		errno = s.decide(ep)
	}
	s.end(o, c, errno)
}

// fail answers a notification that the supervisor could not look into. What it
// is not allowed to see does not connect.
func (s *supervisor) fail(n *notif, what string, err error) {
	e := errnoOf(err)
	if e == unix.EPERM {
		s.opts.Logf("seccomp: thread %d: cannot %s: %v (is the program non-dumpable, or another user's?)", n.TID, what, err)
		e = unix.EACCES
	}
	s.reply(n.ID, e)
}

func (s *supervisor) refuse(n *notif, ep *endpoint, err error) { s.reply(n.ID, s.denied(ep, err)) }

func (s *supervisor) denied(ep *endpoint, err error) unix.Errno {
	s.opts.OnBlocked(Denial{PID: ep.in.ProcessID, AppID: ep.in.AppID, Remote: ep.in.Remote, Err: err})
	return unix.EACCES
}

// decide runs a TCP connect through the ALE.
func (s *supervisor) decide(ep *endpoint) unix.Errno {
	// The socket itself says whether it may connect at all. The address given
	// here is too short to go anywhere: EINVAL is the answer of a socket that is
	// ready. Performing the original instead would be a race: another thread may
	// disconnect the socket meanwhile, and it would connect undecided.
	if e := sysConnect(ep.fd, nowhere); e != unix.EINVAL {
		return e
	}
	remote, e := parse(ep.domain, ep.sa)
	if e != 0 {
		return e
	}
	if remote.Addr().Is4In6() {
		// Answered, not performed: V6ONLY can be changed meanwhile.
		if only, _ := unix.GetsockoptInt(ep.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY); only != 0 {
			return unix.ENETUNREACH
		}
	}
	ep.in.Remote, ep.in.Local = remote, localAddr(ep.fd)
	flow, err := s.opts.ALE.Connect(s.ctx, ep)
	if flow != nil {
		flow.Detach() // The program closes the socket, and nobody tells us.
	}
	if ip := (*connectError)(nil); errors.As(err, &ip) {
		return ip.errno
	}
	if err != nil {
		return s.denied(ep, err)
	}
	if !ep.connected { // An ALE that let nothing go: success would be a lie.
		return s.denied(ep, errors.New("seccomp: the decision was neither a block nor a connect"))
	}
	return 0
}

// An endpoint is the program's socket, in the supervisor's hands.
type endpoint struct {
	fd, domain int
	sa         []byte // as the program gave it
	in         fwps.Incoming
	op         *op
	connected  bool
}

func (ep *endpoint) Incoming() fwps.Incoming { return ep.in }

// Connect connects the program's socket, blocking if it is a blocking one.
func (ep *endpoint) Connect(_ context.Context, to netip.AddrPort) (netip.AddrPort, error) {
	sa := ep.sa // It may have a scope and a flow label.
	if to != ep.in.Remote {
		sa = sockaddr(ep.domain, to)
		if to.Addr().Unmap().IsLoopback() {
			if err := unbindDevice(ep.fd); err != nil {
				return netip.AddrPort{}, &connectError{unix.ENETUNREACH}
			}
		}
	}
	ep.op.connecting(time.Now())
	e := sysConnect(ep.fd, sa)
	for e == unix.EINTR { // A signal to the supervisor; the connect goes on.
		if e = sysConnect(ep.fd, nowhere); e == unix.EISCONN {
			e = 0
		}
	}
	if e != 0 && e != unix.EINPROGRESS {
		return netip.AddrPort{}, &connectError{e}
	}
	ep.connected = true
	local := localAddr(ep.fd)
	if e != 0 {
		return local, &connectError{e}
	}
	return local, nil
}

// unbindDevice frees a socket from its interface, from which a redirect to
// loopback would get lost.
func unbindDevice(fd int) error {
	if dev, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX); dev <= 0 {
		return nil
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, 0)
}

// A connectError is what the kernel answered to a connect.
type connectError struct{ errno unix.Errno }

func (e *connectError) Error() string { return e.errno.Error() }
func (e *connectError) Unwrap() error { return e.errno }

// Is reports EINPROGRESS as ale.ErrInProgress.
func (e *connectError) Is(target error) bool {
	return target == ale.ErrInProgress && e.errno == unix.EINPROGRESS
}

// errnoOf returns the errno in err. What has none must not become a success.
func errnoOf(err error) unix.Errno {
	var e unix.Errno
	if !errors.As(err, &e) || e == 0 {
		return unix.EACCES
	}
	return e
}

// nowhere is an address that no TCP socket can connect to: a family and no more.
var nowhere = binary.NativeEndian.AppendUint16(nil, unix.AF_INET)

func sysConnect(fd int, sa []byte) unix.Errno {
	_, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(sa))), uintptr(len(sa)))
	return e
}

// parse reads an address as TCP of the given domain does, with its errors.
func parse(domain int, sa []byte) (netip.AddrPort, unix.Errno) {
	need := 16
	if domain == unix.AF_INET6 {
		need = 24 // SIN6_LEN_RFC2133
	}
	switch {
	case len(sa) < need:
		return netip.AddrPort{}, unix.EINVAL
	case int(binary.NativeEndian.Uint16(sa)) != domain:
		return netip.AddrPort{}, unix.EAFNOSUPPORT
	}
	return address(sa), 0
}

// address reads a sockaddr_in or sockaddr_in6. A v4-mapped address stays one.
func address(sa []byte) netip.AddrPort {
	port := binary.BigEndian.Uint16(sa[2:])
	if binary.NativeEndian.Uint16(sa) == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(sa[4:8])), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(sa[8:24])), port)
}

// sockaddr writes an address for a socket of the given domain.
func sockaddr(domain int, to netip.AddrPort) []byte {
	if domain == unix.AF_INET6 {
		b := make([]byte, 28)
		a := to.Addr().As16()
		copy(b[8:], a[:])
		return header(b, unix.AF_INET6, to.Port())
	}
	b := make([]byte, 16)
	if a := to.Addr().Unmap(); a.Is4() {
		a4 := a.As4()
		copy(b[4:], a4[:])
		return header(b, unix.AF_INET, to.Port())
	}
	return header(b, unix.AF_INET6, to.Port()) // The kernel says EAFNOSUPPORT.
}

func header(b []byte, family, port uint16) []byte {
	binary.NativeEndian.PutUint16(b, family)
	binary.BigEndian.PutUint16(b[2:], port)
	return b
}

// localAddr returns what getsockname says, unmapped.
func localAddr(fd int) netip.AddrPort {
	var b [28]byte
	n := uint32(len(b))
	_, _, e := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&b)), uintptr(unsafe.Pointer(&n)))
	if e != 0 {
		return netip.AddrPort{}
	}
	a := address(b[:])
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
