//go:build unix && !solaris

package transport

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// few is how many bytes go by way of a buffer. For more, where the system can
// splice, two calls of it that copy nothing are cheaper.
const few = 16 << 10

var buffers = sync.Pool{New: func() any { return new([few]byte) }}

// A relay moves bytes one way.
type relay struct {
	dst, src Stream
	to, from syscall.RawConn // of dst, of src

	much  bool // there was more than a buffer holds
	ready int  // bytes that are worth a splice
	buf   *[few]byte
	n     int   // bytes in buf
	err   error // of the read
}

// Relay moves what src has to dst until src's peer disconnects. While it waits for
// src it holds no buffer and no pipe: thousands of connections may be idle. may is
// asked before bytes go on, and its error ends the relay.
func Relay(dst, src Stream, may func() error) (moved int64, err error) {
	r := &relay{dst: dst, src: src}
	if r.from, err = src.SyscallConn(); err != nil {
		return 0, err
	}
	if r.to, err = dst.SyscallConn(); err != nil {
		return 0, err
	}
	look := r.look
	for {
		r.ready, r.n, r.err = 0, 0, nil
		if err := r.from.Read(look); err != nil {
			return moved, err
		}
		n, err := r.pass(may)
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
func (r *relay) pass(may func() error) (int64, error) {
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
		n, err := bulk(r.to, r.from, r.ready)
		return n, r.failed(err)
	}
	r.much = r.n == few
	n, err := r.dst.Write(r.buf[:r.n])
	return int64(n), err
}

// failed adds to an error of a call of the system what it was about.
func (r *relay) failed(err error) error {
	if call, ok := err.(*os.SyscallError); ok {
		return &net.OpError{Op: call.Syscall, Net: "tcp", Source: r.src.RemoteAddr(), Addr: r.dst.RemoteAddr(), Err: call.Err}
	}
	return err
}
