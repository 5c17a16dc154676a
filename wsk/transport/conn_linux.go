package transport

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Conn is a TCP connection. Package net makes one of a descriptor only by a
// duplicate, and asks the system for both addresses and sets five options of each:
// this one is made of the descriptor itself, by who knows the addresses. Its errors
// are those of package net.
type Conn struct {
	f             *os.File
	raw           syscall.RawConn // of f
	local, remote netip.AddrPort
	closed        atomic.Bool
}

// newConn owns fd, which does not block.
func newConn(fd int, local, remote netip.AddrPort) *Conn {
	c := &Conn{f: os.NewFile(uintptr(fd), "tcp"), local: local, remote: remote}
	c.raw, _ = c.f.SyscallConn() // It fails for a file that is nil.
	return c
}

// The keep-alive probes of package net.
const (
	probeAfter = 15 * time.Second
	probes     = 9
)

// tune makes a socket as package net makes its own: without delay and kept alive. What
// a listener is accepted connections are.
func tune(fd int) {
	for _, o := range [...][3]int{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(probeAfter / time.Second)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(probeAfter / time.Second)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, probes},
	} {
		_ = unix.SetsockoptInt(fd, o[0], o[1], o[2]) // A kernel without one has the connection nevertheless.
	}
}

// Local is this end's address.
func (c *Conn) Local() netip.AddrPort { return c.local }

// Remote is the peer's address.
func (c *Conn) Remote() netip.AddrPort { return c.remote }

// LocalAddr is this end's address.
func (c *Conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.local) }

// RemoteAddr is the peer's address.
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

// Read reads.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.f.Read(b)
	return n, c.failed("read", err)
}

// Write writes all of b, or fails.
func (c *Conn) Write(b []byte) (int, error) {
	n, err := c.f.Write(b)
	return n, c.failed("write", err)
}

// CloseWrite tells the peer that nothing more comes.
func (c *Conn) CloseWrite() error {
	return c.control("close", func(fd int) error { return os.NewSyscallError("shutdown", unix.Shutdown(fd, unix.SHUT_WR)) })
}

// Close closes the connection. Who reads or writes gets net.ErrClosed.
func (c *Conn) Close() error {
	c.closed.Store(true)
	return c.failed("close", c.f.Close())
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error { return c.failed("set", c.f.SetDeadline(t)) }

// SetReadDeadline sets the deadline of reads.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.failed("set", c.f.SetReadDeadline(t)) }

// SetWriteDeadline sets the deadline of writes.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.failed("set", c.f.SetWriteDeadline(t)) }

// SetLinger has Close discard what was not sent after so many seconds: zero is a
// reset, less than that never.
func (c *Conn) SetLinger(seconds int) error {
	l := unix.Linger{Onoff: 1, Linger: int32(seconds)}
	if seconds < 0 {
		l = unix.Linger{}
	}
	return c.control("set", func(fd int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &l))
	})
}

// SetNoDelay sends at once what is written.
func (c *Conn) SetNoDelay(on bool) error { return c.set(unix.IPPROTO_TCP, unix.TCP_NODELAY, btoi(on)) }

// SetKeepAlive has the system ask a silent peer whether it is still there.
func (c *Conn) SetKeepAlive(on bool) error {
	return c.set(unix.SOL_SOCKET, unix.SO_KEEPALIVE, btoi(on))
}

// SetKeepAliveConfig does that too, and says when. As with package net zero is what a
// connection begins with, and less leaves a value as it is.
func (c *Conn) SetKeepAliveConfig(k net.KeepAliveConfig) error {
	seconds := func(d time.Duration) int {
		if d == 0 {
			d = probeAfter
		}
		return int((d + time.Second - 1) / time.Second)
	}
	if k.Count == 0 {
		k.Count = probes
	}
	err := c.SetKeepAlive(k.Enable)
	for _, o := range [...]struct{ option, value int }{
		{unix.TCP_KEEPIDLE, seconds(k.Idle)}, {unix.TCP_KEEPINTVL, seconds(k.Interval)}, {unix.TCP_KEEPCNT, k.Count},
	} {
		if err == nil && o.value > 0 {
			err = c.set(unix.IPPROTO_TCP, o.option, o.value)
		}
	}
	return err
}

// SetReadBuffer sets the size of the receive buffer.
func (c *Conn) SetReadBuffer(n int) error { return c.set(unix.SOL_SOCKET, unix.SO_RCVBUF, n) }

// SetWriteBuffer sets the size of the send buffer.
func (c *Conn) SetWriteBuffer(n int) error { return c.set(unix.SOL_SOCKET, unix.SO_SNDBUF, n) }

func (c *Conn) set(level, option, value int) error {
	return c.control("set", func(fd int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, option, value))
	})
}

func (c *Conn) control(op string, do func(fd int) error) error {
	var did error
	err := c.raw.Control(func(fd uintptr) { did = do(int(fd)) })
	if err == nil {
		err = did
	}
	return c.failed(op, err)
}

// SyscallConn gives the descriptor to who has calls of its own for it.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return (*rawConn)(c), nil }

type rawConn Conn

func (r *rawConn) Control(f func(uintptr)) error {
	return (*Conn)(r).failed("raw-control", r.raw.Control(f))
}

func (r *rawConn) Read(f func(uintptr) bool) error {
	return (*Conn)(r).failed("raw-read", r.raw.Read(f))
}

func (r *rawConn) Write(f func(uintptr) bool) error {
	return (*Conn)(r).failed("raw-write", r.raw.Write(f))
}

// failed makes an error of a file what package net has for it.
func (c *Conn) failed(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: cause(op, err, &c.closed)}
}

// cause is what went wrong. Package os has an error of its own for a file that is
// being closed, which has no name.
func cause(op string, err error, closed *atomic.Bool) error {
	if f := (*fs.PathError)(nil); errors.As(err, &f) {
		err = f.Err
	}
	if closed.Load() && !errors.Is(err, os.ErrDeadlineExceeded) {
		return net.ErrClosed
	}
	if no, ok := err.(syscall.Errno); ok {
		return os.NewSyscallError(op, no)
	}
	return err
}
