//go:build unix && !solaris

package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// backlog is how many connections the system may keep for a listener.
const backlog = 1024

// A Socket is bound and neither listens nor is connected.
type Socket struct {
	f     *os.File // nil once the socket has become a connection or a listener
	v4    bool
	o     Options
	local netip.AddrPort
}

// Bind opens a socket at an address. Port zero is chosen here (WSK-BIND-01).
func Bind(want netip.AddrPort, o Options) (*Socket, error) {
	s := &Socket{v4: want.Addr().Is4(), o: o}
	return s, s.bind(want)
}

func (s *Socket) bind(want netip.AddrPort) error {
	sa, err := s.sockaddr(want)
	if err != nil {
		return err
	}
	fd, err := open(s.v4, s.o)
	if err != nil {
		return err
	}
	s.f = os.NewFile(uintptr(fd), "tcp")
	if err := unix.Bind(fd, sa); err != nil {
		s.Close()
		return os.NewSyscallError("bind", err)
	}
	got, err := unix.Getsockname(fd)
	if err != nil {
		s.Close()
		return os.NewSyscallError("getsockname", err)
	}
	s.local = addrPort(got)
	return nil
}

func open(v4 bool, o Options) (int, error) {
	family := unix.AF_INET6
	if v4 {
		family = unix.AF_INET
	}
	syscall.ForkLock.RLock() // No child may inherit it; not every system has SOCK_CLOEXEC.
	fd, err := unix.Socket(family, unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	err = unix.SetNonblock(fd, true)
	if err == nil && !v4 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, btoi(!o.DualStack))
	}
	if err == nil && (o.Listens || o.Shared) {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil && o.Shared {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("setsockopt", err)
	}
	return fd, nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Local is the bound address.
func (s *Socket) Local() netip.AddrPort { return s.local }

// Connect makes the socket a connection. If it fails, the socket is as before.
// When ctx ends, so does Connect.
func (s *Socket) Connect(ctx context.Context, to netip.AddrPort) (*net.TCPConn, error) {
	if s.f == nil {
		return nil, net.ErrClosed
	}
	sa, err := s.sockaddr(to)
	if err != nil {
		return nil, err
	}
	if err := s.connect(ctx, sa); err != nil {
		// A socket whose connect failed is of no use on most systems.
		s.Close()
		if again := s.bind(s.local); again != nil {
			return nil, fmt.Errorf("%w; and the address is lost: %v", err, again)
		}
		return nil, err
	}
	c, err := net.FileConn(s.f) // A duplicate, whose peer is known.
	if err != nil {
		return nil, err
	}
	s.Close()
	return c.(*net.TCPConn), nil
}

func (s *Socket) connect(ctx context.Context, sa unix.Sockaddr) error {
	raw, err := s.f.SyscallConn()
	if err != nil {
		return err
	}
	if err := s.f.SetWriteDeadline(time.Time{}); err != nil {
		return err
	}
	f := s.f
	stop := context.AfterFunc(ctx, func() { f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	asked, failed := false, error(nil)
	err = raw.Write(func(fd uintptr) bool {
		if !asked {
			asked = true
			failed = os.NewSyscallError("connect", unix.Connect(int(fd), sa))
		} else {
			failed = progress(int(fd))
		}
		return !errors.Is(failed, unix.EINPROGRESS) && !errors.Is(failed, unix.EINTR) && !errors.Is(failed, unix.EALREADY)
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return err
	}
	return failed
}

// progress is how far a connect has come. A socket is writable before that too,
// so only a peer proves that it is connected.
func progress(fd int) error {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err != nil:
		return os.NewSyscallError("getsockopt", err)
	case n != 0:
		return os.NewSyscallError("connect", syscall.Errno(n))
	}
	if _, err := unix.Getpeername(fd); err != nil {
		return unix.EINPROGRESS
	}
	return nil
}

// Listen makes the socket a listener.
func (s *Socket) Listen() (*net.TCPListener, error) {
	if s.f == nil {
		return nil, net.ErrClosed
	}
	raw, err := s.f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.Listen(int(fd), backlog) }); err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, os.NewSyscallError("listen", failed)
	}
	ln, err := net.FileListener(s.f)
	if err != nil {
		return nil, err
	}
	s.Close()
	return ln.(*net.TCPListener), nil
}

// Close gives the address up. Later calls do nothing.
func (s *Socket) Close() {
	if s.f != nil {
		s.f.Close()
		s.f = nil
	}
}
