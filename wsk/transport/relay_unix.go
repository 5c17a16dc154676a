//go:build unix && !solaris

package transport

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

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
	sent  int   // of them
	err   error // of the read, or of the write

	write func(fd uintptr) bool // put
	wait  func()                // stalled

	waits atomic.Bool                // for dst, which takes nothing
	look  atomic.Pointer[time.Timer] // at src meanwhile; nil before the first time
	gone  atomic.Bool                // src was reset meanwhile
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
	peek := r.peek
	r.write, r.wait = r.put, r.stalled
	for {
		r.ready, r.n, r.err = 0, 0, nil
		if err := r.from.Read(peek); err != nil {
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

// peek reads what is there, or sees that it is worth a splice; false is nothing.
func (r *relay) peek(fd uintptr) bool {
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

// pass hands on what peek found; io.EOF is the end.
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
	n, err := int64(0), error(nil)
	if r.ready > 0 {
		n, err = bulk(r.to, r.from, r.ready, r.wait)
	} else {
		r.much, r.sent = r.n == few, 0
		if err = r.to.Write(r.write); err == nil {
			err = r.err
		}
		n = int64(r.sent)
	}
	if r.waits.Load() {
		r.waits.Store(false)
		r.look.Load().Stop()
	}
	if err != nil && r.gone.Load() {
		err = os.NewSyscallError("read", unix.ECONNRESET)
	}
	return n, r.failed(err)
}

// put writes what is left of the buffer.
func (r *relay) put(fd uintptr) bool {
	for r.sent < r.n {
		k, err := unix.Write(int(fd), r.buf[r.sent:r.n])
		switch {
		case err == unix.EAGAIN:
			r.stalled()
			return false
		case err == unix.EINTR:
		case err != nil:
			r.err = os.NewSyscallError("write", err)
			return true
		default:
			r.sent += k
		}
	}
	return true
}

// again is how long dst may take nothing until src is looked at: nobody else hears that
// it was reset.
const again = 2 * time.Second

// stalled is called when dst takes nothing for the moment.
func (r *relay) stalled() {
	if r.waits.Swap(true) {
		return // It took something meanwhile.
	}
	if t := r.look.Load(); t != nil {
		t.Reset(again)
		return
	}
	r.look.Store(time.AfterFunc(again, r.lookAtSource))
}

func (r *relay) lookAtSource() {
	reset := false
	_ = r.from.Control(func(fd uintptr) { // Closed: whoever did so ends this, too.
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLERR}}
		n, err := unix.Poll(p, 0)
		reset = n == 1 && err == nil && p[0].Revents&unix.POLLERR != 0
	})
	switch t := r.look.Load(); {
	case !r.waits.Load():
	case reset:
		r.gone.Store(true)
		_ = r.dst.SetWriteDeadline(time.Unix(1, 0))
	case t != nil:
		t.Reset(again)
	}
}

// failed adds to an error of a call of the system what it was about.
func (r *relay) failed(err error) error {
	if call, ok := err.(*os.SyscallError); ok {
		return &net.OpError{Op: call.Syscall, Net: "tcp", Source: r.src.RemoteAddr(), Addr: r.dst.RemoteAddr(), Err: call.Err}
	}
	return err
}
