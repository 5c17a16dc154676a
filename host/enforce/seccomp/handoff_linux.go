//go:build amd64 || arm64

package seccomp

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce/handoff"
	"github.com/calloutd/calloutd/host/enforce/internal/carry"
	"golang.org/x/sys/unix"
)

// A handoffError is a connection that a proxy did not take over.
type handoffError struct {
	why   error
	errno callError
}

func (e *handoffError) Error() string   { return e.why.Error() }
func (e *handoffError) Unwrap() []error { return []error{e.why, &e.errno} }

// handOff connects the program's socket to a proxy and hands the connection over.
// When it cannot, the socket is as if it had never connected.
func (w *worker) handOff(p *handoff.Proxy, to ale.Target, sa []byte) (netip.AddrPort, error) {
	c := &handoffConn{w: w, until: time.Now().Add(w.s.opts.HandoffTime)}
	if !to.Remote.Addr().Unmap().IsLoopback() {
		c.relieve()
	}
	e := c.connect(sa)
	if e != 0 {
		_ = w.sysConnect(disconnected) // It may be connecting yet.
		return noAddr, callErr(e)
	}
	local, err := c.introduce(p, to)
	if err != nil {
		_ = w.sysConnect(disconnected)
		if !w.s.l.valid(&w.n.ID) {
			return noAddr, errKilled
		}
		return noAddr, err
	}
	if w.named(&w.s.names.peers, true); !w.sock.blocking() {
		w.pending = unix.EINPROGRESS
	}
	return local, nil
}

// disconnected is AF_UNSPEC, which ends a connection.
var disconnected = make([]byte, sockaddr4Len)

// A handoffConn is the program's socket, connected to a proxy.
type handoffConn struct {
	w        *worker
	until    time.Time
	relieved bool // another one receives meanwhile
}

// brief is how long a proxy's answer is waited for without giving up the thread:
// one on this host answers sooner than another thread would take over.
const brief = 500 * time.Microsecond

func (c *handoffConn) relieve() {
	c.relieved = true
	c.w.s.relieve(c.w)
}

// wait waits for an event of the socket: briefly here, and then parked.
func (c *handoffConn) wait(events uint32) unix.Errno {
	if !c.relieved {
		p, limit := unix.PollFd{Fd: int32(c.w.fd), Events: int16(events)}, unix.NsecToTimespec(brief.Nanoseconds())
		if n, _ := c.w.syscall(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&limit)), 0); n == 1 {
			return 0
		}
		c.relieve()
	}
	return c.w.await(events, c.until)
}

// connect connects and waits until it is, also if the socket does not wait.
func (c *handoffConn) connect(sa []byte) unix.Errno {
	e := c.w.sysConnect(sa)
	for e == unix.EINTR || e == unix.EINPROGRESS {
		if e = c.wait(unix.EPOLLOUT); e != 0 {
			return unix.ETIMEDOUT
		}
		if !c.w.sock.blocking() && c.w.tcpState() == tcpEstablished {
			return 0 // The outcome is left for the program's next connect().
		}
		switch e = c.w.sysConnect(nowhere); e {
		case unix.EISCONN:
			return 0
		case unix.EALREADY:
			e = unix.EINPROGRESS
		case unix.EINVAL:
			return unix.ECONNABORTED
		}
	}
	return e
}

func (c *handoffConn) introduce(p *handoff.Proxy, to ale.Target) (netip.AddrPort, error) {
	local, e := c.w.local()
	if e != 0 {
		return noAddr, callErr(e)
	}
	r, err := carry.Request(c.w.s.opts.ALE, p, &c.w.in, to)
	if err != nil {
		return noAddr, err
	}
	r.Source, r.UniqueID = local, c.w.s.handed.Next()
	own := &counter{ReadWriter: c}
	if err := p.Introduce(own, &r); err != nil {
		return noAddr, &handoffError{err, callError{errnoFor(err)}}
	}
	if n := c.w.written(); n > own.written {
		return noAddr, &handoffError{fmt.Errorf("the program wrote %d bytes to the proxy before it was connected", n-own.written), callError{unix.ECONNABORTED}}
	}
	return local, nil
}

// errnoFor is what the program is told.
func errnoFor(err error) unix.Errno {
	e, _ := errors.AsType[*handoff.Error](err)
	if e == nil {
		return unix.ECONNREFUSED
	}
	switch e.Cause {
	case handoff.HostUnreachable:
		return unix.EHOSTUNREACH
	case handoff.NetworkUnreachable:
		return unix.ENETUNREACH
	case handoff.TimedOut:
		return unix.ETIMEDOUT
	case handoff.NotAllowed:
		return unix.EACCES
	}
	return unix.ECONNREFUSED
}

// Read reads what is there, and waits until something is.
func (c *handoffConn) Read(b []byte) (int, error) {
	return c.transfer(unix.SYS_RECVFROM, b, unix.EPOLLIN, 0)
}

// Write writes all of b.
func (c *handoffConn) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var more int
		more, err = c.transfer(unix.SYS_SENDTO, b[n:], unix.EPOLLOUT, unix.MSG_NOSIGNAL)
		n += more
	}
	return n, err
}

func (c *handoffConn) transfer(call uintptr, b []byte, events uint32, flags uintptr) (int, error) {
	for {
		c.w.enter()
		n, _, e := unix.Syscall6(call, uintptr(c.w.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT|flags, 0, 0)
		c.w.leave()
		switch {
		case e == 0 && n == 0 && call == unix.SYS_RECVFROM:
			return 0, io.EOF
		case e == 0:
			return int(n), nil
		case e != unix.EAGAIN:
			return 0, e
		}
		if e := c.wait(events); e != 0 {
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// A counter counts what is written.
type counter struct {
	io.ReadWriter
	written uint64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.ReadWriter.Write(b)
	c.written += uint64(n)
	return n, err
}

// written is how many bytes were written to the TCP socket since it connected, by
// whoever has it.
func (w *worker) written() uint64 {
	w.enter()
	info, err := unix.GetsockoptTCPInfo(w.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	w.leave()
	if err != nil {
		return 0
	}
	return info.Bytes_sent - info.Bytes_retrans + uint64(info.Notsent_bytes)
}
