//go:build unix && !solaris

package transport

import (
	"context"
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
	fd    int // -1 once the socket has become a connection or a listener
	v4    bool
	o     Options
	local netip.AddrPort
}

// Bind opens a socket at an address. Port zero is chosen here (WSK-BIND-01).
func Bind(want netip.AddrPort, o Options) (*Socket, error) {
	s := &Socket{fd: -1, v4: want.Addr().Is4(), o: o}
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
	s.fd = fd
	if err := unix.Bind(fd, sa); err != nil {
		s.Close()
		return os.NewSyscallError("bind", err)
	}
	got, err := syscall.Getsockname(fd)
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
	fd, err := stream(family)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if !v4 {
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
// When ctx ends, so does Connect. The connection is the caller's to close; Close of
// the socket then does nothing.
func (s *Socket) Connect(ctx context.Context, to netip.AddrPort) (*Conn, error) {
	if s.fd < 0 {
		return nil, net.ErrClosed
	}
	sa, err := s.sockaddr(to)
	if err != nil {
		return nil, err
	}
	if err = s.connect(ctx, sa); err == nil {
		c, failed := s.conn(to)
		if failed == nil {
			return c, nil
		}
		err = failed
	}
	// A socket whose connect failed is of no use on most systems.
	s.Close()
	if again := s.bind(s.local); again != nil {
		return nil, fmt.Errorf("%w; and the address is lost: %v", err, again)
	}
	return nil, err
}

// connect connects. What a peer on this host answers is there at once; only for
// another the poller is asked.
func (s *Socket) connect(ctx context.Context, sa unix.Sockaddr) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := unix.Connect(s.fd, sa)
	if underWay(err) {
		err = progress(s.fd)
	}
	if underWay(err) {
		return s.await(ctx)
	}
	return os.NewSyscallError("connect", err)
}

func underWay(err error) bool {
	return err == unix.EINPROGRESS || err == unix.EINTR || err == unix.EALREADY
}

// await waits for the end of a connect, on a duplicate for the poller.
func (s *Socket) await(ctx context.Context) error {
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(fd), "tcp")
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		failed = progress(int(fd))
		return !underWay(failed)
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return err
	}
	return os.NewSyscallError("connect", failed)
}

// progress is how far a connect has come. A socket is writable before that too,
// so only a peer proves that it is connected.
func progress(fd int) error {
	if _, err := syscall.Getpeername(fd); err == nil {
		return nil
	}
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err != nil:
		return err
	case n != 0:
		return syscall.Errno(n)
	}
	return unix.EINPROGRESS
}

// Listen makes the socket a listener, which is the caller's to close.
func (s *Socket) Listen() (*Listener, error) {
	if s.fd < 0 {
		return nil, net.ErrClosed
	}
	tune(s.fd) // Before: a connection has what the listener had when it came.
	if err := unix.Listen(s.fd, backlog); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	return s.listener()
}

// Close gives the address up. Later calls do nothing.
func (s *Socket) Close() {
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
}
