package transport

import (
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Listener accepts connections.
type Listener struct {
	f      *os.File
	raw    syscall.RawConn // of f
	local  netip.AddrPort
	closed atomic.Bool
}

// listener makes the socket, which listens, a Listener.
func (s *Socket) listener() (*Listener, error) {
	l := &Listener{f: os.NewFile(uintptr(s.fd), "tcp"), local: s.local}
	l.raw, _ = l.f.SyscallConn() // It fails for a file that is nil.
	s.fd = -1
	return l, nil
}

// Local is where the listener listens.
func (l *Listener) Local() netip.AddrPort { return l.local }

// Accept waits for a connection. After Close its error is net.ErrClosed.
func (l *Listener) Accept() (*Conn, error) {
	var fd int
	var peer syscall.Sockaddr
	var failed error
	err := l.raw.Read(func(listens uintptr) bool {
		for {
			fd, peer, failed = syscall.Accept4(int(listens), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			switch failed {
			case syscall.EINTR, syscall.ECONNABORTED: // Who gave up makes no difference to others.
				continue
			}
			return failed != syscall.EAGAIN
		}
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: net.TCPAddrFromAddrPort(l.local), Err: cause("accept4", err, &l.closed)}
	}
	local, err := named(fd, l.local)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return newConn(fd, local, addrPort(peer)), nil
}

// Close ends it. Its connections go on.
func (l *Listener) Close() error {
	l.closed.Store(true)
	return l.f.Close()
}

// named is the local address of a connected socket that was bound so: only of one that
// was bound to any address it has to be asked.
func named(fd int, bound netip.AddrPort) (netip.AddrPort, error) {
	if !bound.Addr().IsUnspecified() {
		return bound, nil
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
	}
	return addrPort(sa), nil
}

// conn makes the socket, which is connected, a Conn.
func (s *Socket) conn(to netip.AddrPort) (*Conn, error) {
	local, err := named(s.fd, s.local)
	if err != nil {
		return nil, err
	}
	tune(s.fd)
	c := newConn(s.fd, local, to)
	s.fd = -1
	return c, nil
}
