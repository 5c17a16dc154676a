//go:build unix && !solaris

package transport

import (
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// few is how many bytes go by way of a buffer. For more, where the system can
// splice, two calls of it that copy nothing are cheaper.
const few = 16 << 10

var buffers = sync.Pool{New: func() any { return new([few]byte) }}

// A relay moves bytes one way.
type relay struct {
	src   *net.TCPConn
	much  bool // there was more than a buffer holds
	ready int  // bytes that are worth a splice
	buf   *[few]byte
	n     int   // bytes in buf
	err   error // of the read
}

// Relay moves what src has to dst until src's peer disconnects. While it waits for
// src it holds no buffer and no pipe: thousands of connections may be idle. may is
// asked before bytes go on, and its error ends the relay.
func Relay(dst, src *net.TCPConn, may func() error) (moved int64, err error) {
	raw, err := src.SyscallConn()
	if err != nil {
		return 0, err
	}
	r := &relay{src: src}
	look := r.look
	for {
		r.ready, r.n, r.err = 0, 0, nil
		if err := raw.Read(look); err != nil {
			return moved, err
		}
		n, err := r.pass(dst, may)
		moved += n
		if err == io.EOF {
			return moved, nil
		}
		if err != nil {
			return moved, err
		}
	}
}

// look reads what is there, or sees that it is worth a splice; false is nothing.
func (r *relay) look(fd uintptr) bool {
	if r.much {
		if n, err := inq(int(fd)); err == nil && n > few {
			r.ready = n
			return true
		}
	}
	r.buf = buffers.Get().(*[few]byte)
	for {
		r.n, r.err = unix.Read(int(fd), r.buf[:])
		if r.err != unix.EINTR {
			break
		}
	}
	if r.err == unix.EAGAIN {
		r.drop()
		r.err = nil
		return false
	}
	return true
}

func (r *relay) drop() {
	buffers.Put(r.buf)
	r.buf = nil
}

// pass hands on what look found; io.EOF is the end.
func (r *relay) pass(dst *net.TCPConn, may func() error) (int64, error) {
	if r.buf != nil {
		defer r.drop()
	}
	switch {
	case r.err != nil:
		return 0, &net.OpError{Op: "read", Net: "tcp", Source: r.src.LocalAddr(), Addr: r.src.RemoteAddr(), Err: os.NewSyscallError("read", r.err)}
	case r.ready == 0 && r.n == 0:
		return 0, io.EOF
	}
	if err := may(); err != nil {
		return 0, err
	}
	if r.ready > 0 {
		return dst.ReadFrom(&io.LimitedReader{R: r.src, N: int64(r.ready)})
	}
	r.much = r.n == few
	n, err := dst.Write(r.buf[:r.n])
	return int64(n), err
}
