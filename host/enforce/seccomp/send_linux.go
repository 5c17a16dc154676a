//go:build amd64 || arm64

package seccomp

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	maxPayload = 1<<16 - 1 // of a datagram, and of several sent with UDP_SEGMENT
	maxControl = 1 << 16
	maxVectors = 1024 // UIO_MAXIOV
)

// A message is what one datagram is sent with.
type message struct {
	sa               []byte // empty: to the connected peer
	payload, control []byte
	flags            int
}

// sendto answers a sendto() that has an address.
func (w *worker) sendto() unix.Errno {
	if e := w.lookSend(); e != 0 {
		return e
	}
	a := &w.n.Data.Args
	m := message{flags: int(int32(a[3]))}
	var e unix.Errno
	if m.sa, e = w.sockaddr(a[4], int32(a[5])); e != 0 {
		return e
	}
	if a[2] > maxPayload {
		return unix.EMSGSIZE
	}
	m.payload = w.room(&w.payload, int(a[2]))
	if e := w.read(a[1], m.payload); e != 0 {
		return e
	}
	if e := w.know(); e != 0 {
		return e
	}
	return w.send(&m)
}

// lookSend looks at the socket of a send call. What is no datagram of IP does not
// need a decision: proceed.
func (w *worker) lookSend() unix.Errno {
	switch e := w.sock.look(w.fd); {
	case e != 0:
		return e
	case !w.sock.inet():
		return w.outside()
	case w.sock.tcp():
		return proceed // It goes to the peer, whatever address there is.
	case !w.sock.datagram():
		return w.undecidable()
	}
	return 0
}

// sendmsg answers a sendmsg(), with or without an address: where that is, is in
// memory, which the filter cannot read.
func (w *worker) sendmsg() unix.Errno {
	if e := w.lookSend(); e != 0 {
		return e
	}
	var m message
	if e := w.readMessage(w.n.Data.Args[1], &m); e != 0 {
		return e
	}
	m.flags = int(int32(w.n.Data.Args[2]))
	if e := w.know(); e != 0 {
		return e
	}
	return w.send(&m)
}

// sendmmsg answers a sendmmsg(): it sends until one fails, and says how many it
// has sent if there were any.
func (w *worker) sendmmsg() unix.Errno {
	if e := w.lookSend(); e != 0 {
		return e
	}
	if e := w.know(); e != 0 {
		return e
	}
	const size = int(unsafe.Sizeof(unix.Mmsghdr{}))
	sent := int64(0)
	n := min(uint32(w.n.Data.Args[2]), maxVectors)
	e := unix.Errno(0)
	for at := w.n.Data.Args[1]; e == 0 && sent < int64(n); at += uint64(size) {
		var m message
		if e = w.readMessage(at, &m); e != 0 {
			break
		}
		m.flags = int(int32(w.n.Data.Args[3]))
		if e = w.send(&m); e != 0 {
			break
		}
		length := binary.NativeEndian.AppendUint32(nil, uint32(w.val))
		if e = w.write(at+uint64(unsafe.Offsetof(unix.Mmsghdr{}.Len)), length); e == 0 {
			sent++
		}
	}
	if w.val = sent; sent > 0 {
		return 0
	}
	return e
}

// readMessage reads a struct msghdr and what it points to.
func (w *worker) readMessage(at uint64, m *message) unix.Errno {
	var h struct {
		name               uint64
		nameLen            uint32
		_                  uint32
		iov, iovLen        uint64
		control, controlLn uint64
		_                  uint64
	}
	if e := w.read(at, unsafe.Slice((*byte)(unsafe.Pointer(&h)), unsafe.Sizeof(h))); e != 0 {
		return e
	}
	switch {
	case int32(h.nameLen) < 0:
		return unix.EINVAL
	case h.iovLen > maxVectors:
		return unix.EMSGSIZE
	case h.controlLn > maxControl:
		return unix.ENOBUFS
	}
	if h.name == 0 {
		h.nameLen = 0
	}
	var e unix.Errno
	if m.sa, e = w.sockaddr(h.name, min(int32(h.nameLen), sockaddrLen)); e != 0 {
		return e
	}
	if m.payload, e = w.gather(h.iov, int(h.iovLen)); e != 0 {
		return e
	}
	m.control = w.room(&w.control, int(h.controlLn))
	return w.read(h.control, m.control)
}

// gather reads the buffers of an I/O vector into one.
func (w *worker) gather(at uint64, n int) ([]byte, unix.Errno) {
	vectors := make([]unix.RemoteIovec, n)
	if n == 0 {
		return nil, 0
	}
	if e := w.read(at, unsafe.Slice((*byte)(unsafe.Pointer(&vectors[0])), n*int(unsafe.Sizeof(vectors[0])))); e != 0 {
		return nil, e
	}
	total := 0
	for _, v := range vectors {
		if v.Len < 0 || v.Len > maxPayload {
			return nil, unix.EMSGSIZE
		}
		total += v.Len
	}
	if total > maxPayload {
		return nil, unix.EMSGSIZE
	}
	b := w.room(&w.payload, total)
	return b, readVectors(w.n.TID, vectors, b)
}

// room returns n bytes of a buffer that grows as needed.
func (w *worker) room(b *[]byte, n int) []byte {
	if cap(*b) < n {
		*b = make([]byte, n, max(n, 4096))
	}
	return (*b)[:n]
}

// send decides one datagram and sends it, waiting if the socket is a blocking
// one. w.val is what the call returns.
func (w *worker) send(m *message) unix.Errno {
	if m.flags&unix.MSG_ZEROCOPY != 0 {
		return unix.ENOBUFS // The buffer is ours, and used again: the program copies.
	}
	if len(m.sa) == 0 { // Decided when it was connected.
		return w.transmit(m)
	}
	remote, e := parseDatagram(w.sock.domain, m.sa)
	if e != 0 {
		return e
	}
	if w.sock.protocol == unix.IPPROTO_UDP && remote.Port() == 0 {
		return unix.EINVAL
	}
	w.in.Remote = remote
	d := w.s.datagrams.take(w)
	defer w.s.datagrams.give(d)
	to, err := d.send(w, remote, m.payload)
	if err != nil {
		return w.done(err)
	}
	if m.sa, err = w.toward(to); err != nil {
		return w.done(err)
	}
	return w.transmit(m)
}

// transmit is sendmsg(2).
func (w *worker) transmit(m *message) unix.Errno {
	iov := unix.Iovec{Base: unsafe.SliceData(m.payload), Len: uint64(len(m.payload))}
	h := unix.Msghdr{Name: unsafe.SliceData(m.sa), Namelen: uint32(len(m.sa)), Iov: &iov, Iovlen: 1,
		Control: unsafe.SliceData(m.control), Controllen: uint64(len(m.control))}
	for wait := m.flags&unix.MSG_DONTWAIT == 0 && w.sock.blocking(); ; {
		n, _, e := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(w.fd), uintptr(unsafe.Pointer(&h)), uintptr(m.flags|unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL))
		if e != unix.EAGAIN || !wait {
			w.val = int64(n)
			return e
		}
		if e := w.park(unix.EPOLLOUT, unix.SO_SNDTIMEO); e != 0 {
			if e == unix.EINPROGRESS {
				e = unix.EAGAIN
			}
			return e
		}
	}
}
