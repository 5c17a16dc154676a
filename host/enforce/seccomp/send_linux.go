//go:build amd64 || arm64

package seccomp

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	maxDatagram = 1<<16 - 1 // also of several that are sent with UDP_SEGMENT
	maxLocal    = 1 << 18   // of what is sent in one piece on other sockets
	maxControl  = 1 << 16
	maxVectors  = 1024 // UIO_MAXIOV
)

// A message is what one send call of the program asks for.
type message struct {
	sa      []byte // empty: to the connected peer
	data    []unix.RemoteIovec
	size    int // of data
	control []byte
	flags   int
	payload []byte // what was read of data
}

// sendto answers a sendto() that has an address.
func (w *worker) sendto() unix.Errno {
	a := &w.n.Data.Args
	return w.sendOn(func(send func(*message) unix.Errno) unix.Errno {
		size := min(a[2], 1<<30)
		m := message{data: []unix.RemoteIovec{{Base: uintptr(a[1]), Len: int(size)}}, size: int(size), flags: int(int32(a[3]))}
		var e unix.Errno
		if m.sa, e = w.sockaddr(a[4], int32(a[5])); e != 0 {
			return e
		}
		return send(&m)
	})
}

// sendmsg answers a sendmsg(), with or without an address: where that is, is in
// memory, which the filter cannot read.
func (w *worker) sendmsg() unix.Errno {
	return w.sendOn(func(send func(*message) unix.Errno) unix.Errno {
		return w.sendOne(w.n.Data.Args[1], int(int32(w.n.Data.Args[2])), send)
	})
}

// sendmmsg answers a sendmmsg(): it sends until one fails, and says how many it
// has sent if there were any.
func (w *worker) sendmmsg() unix.Errno {
	return w.sendOn(func(send func(*message) unix.Errno) unix.Errno {
		const size, length = unsafe.Sizeof(unix.Mmsghdr{}), unsafe.Offsetof(unix.Mmsghdr{}.Len)
		sent, e := int64(0), unix.Errno(0)
		n := int64(min(uint32(w.n.Data.Args[2]), maxVectors))
		for at := w.n.Data.Args[1]; e == 0 && sent < n; at += uint64(size) {
			if e = w.sendOne(at, int(int32(w.n.Data.Args[3])), send); e != 0 {
				break
			}
			if e = w.write(at+uint64(length), binary.NativeEndian.AppendUint32(nil, uint32(w.val))); e == 0 {
				sent++
			}
		}
		if w.val = sent; sent > 0 {
			return 0
		}
		return e
	})
}

func (w *worker) sendOne(at uint64, flags int, send func(*message) unix.Errno) unix.Errno {
	m := message{flags: flags}
	if e := w.readMessage(at, &m); e != 0 {
		return e
	}
	return send(&m)
}

// sendOn looks at the socket of a send call and says how to send on it, if that
// has to be done here. What is no datagram of IP needs no decision.
func (w *worker) sendOn(call func(send func(*message) unix.Errno) unix.Errno) unix.Errno {
	switch e := w.look(); {
	case e != 0:
		return e
	case w.sock.tcp() && w.s.opts.Isolate && !w.t.alone():
		return call(w.sendLocal)
	case w.sock.tcp():
		return proceed // It goes to the peer, whatever address there is.
	case !w.sock.inet():
		return w.outside(func() unix.Errno { return call(w.sendLocal) })
	case !w.sock.datagram():
		return w.undecidable()
	}
	return call(w.sendDatagram)
}

// readMessage reads a struct msghdr and what it points to, but for the data.
func (w *worker) readMessage(at uint64, m *message) unix.Errno {
	var h struct {
		name               uint64
		nameLen            int32
		iov, iovLen        uint64
		control, controlLn uint64
		_                  uint64
	}
	if e := w.read(at, unsafe.Slice((*byte)(unsafe.Pointer(&h)), unsafe.Sizeof(h))); e != 0 {
		return e
	}
	switch {
	case h.nameLen < 0:
		return unix.EINVAL
	case h.iovLen > maxVectors:
		return unix.EMSGSIZE
	case h.controlLn > maxControl:
		return unix.ENOBUFS
	case h.name == 0:
		h.nameLen = 0
	}
	var e unix.Errno
	if m.sa, e = w.sockaddr(h.name, min(h.nameLen, sockaddrLen)); e != 0 {
		return e
	}
	m.data = make([]unix.RemoteIovec, h.iovLen)
	if e := w.read(h.iov, unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(m.data))), len(m.data)*int(unsafe.Sizeof(unix.RemoteIovec{})))); e != 0 {
		return e
	}
	for _, v := range m.data {
		if v.Len < 0 || v.Len > 1<<30 {
			return unix.EMSGSIZE
		}
		m.size += v.Len
	}
	m.control = w.room(&w.control, int(h.controlLn))
	return w.read(h.control, m.control)
}

// fetch reads the next n bytes of the data.
func (w *worker) fetch(m *message, n int) unix.Errno {
	var piece []unix.RemoteIovec
	for left := n; left > 0 && len(m.data) > 0; {
		v := &m.data[0]
		part := unix.RemoteIovec{Base: v.Base, Len: min(v.Len, left)}
		left -= part.Len
		if piece = append(piece, part); part.Len == v.Len {
			m.data = m.data[1:]
			continue
		}
		v.Base, v.Len = v.Base+uintptr(part.Len), v.Len-part.Len
	}
	m.payload = w.room(&w.payload, n)
	m.size -= n
	return w.readVectors(piece, m.payload)
}

// room returns n bytes of a buffer that grows as needed.
func (w *worker) room(b *[]byte, n int) []byte {
	if cap(*b) < n {
		*b = make([]byte, n, max(n, 4096))
	}
	return (*b)[:n]
}

// sendDatagram decides one datagram and sends it.
func (w *worker) sendDatagram(m *message) unix.Errno {
	switch {
	case m.size > maxDatagram:
		return unix.EMSGSIZE
	case m.flags&unix.MSG_ZEROCOPY != 0:
		return unix.ENOBUFS // The buffer is ours, and used again: the program copies.
	}
	if e := w.fetch(m, m.size); e != 0 {
		return e
	}
	if e := w.know(); e != 0 {
		return e
	}
	if e := unrouted(m.control); e != 0 {
		return e
	}
	if e := w.mayControl(m.control); e != 0 {
		return e
	}
	if len(m.sa) == 0 { // Decided when it was connected.
		if e := w.sameSource(m); e != 0 {
			return e
		}
		return w.transmit(m)
	}
	remote, e := parseDatagram(w.sock.domain, m.sa)
	switch {
	case e != 0:
		return e
	case w.sock.protocol == unix.IPPROTO_UDP && remote.Port() == 0:
		return unix.EINVAL
	}
	remote = w.concrete(m.sa, remote)
	w.in.Remote = remote
	d := w.s.datagrams.take(w)
	defer w.s.datagrams.give(d)
	w.chosen = choose(m.control, remote.Addr().Unmap().Is4())
	to, flow, err := d.send(w, remote, m.payload)
	if err != nil {
		return w.done(err)
	}
	sa, proxy, err := w.towardDatagram(d, to)
	if err == nil && proxy != nil {
		err = proxy.meet(d, w)
	}
	if err != nil {
		return w.done(err)
	}
	if from, ok := flow.Source(); ok && proxy == nil {
		m.control = fixed(m.control, from, to.Addr())
	}
	m.sa = sa
	return w.transmit(m)
}

// unrouted refuses control messages with a source route, as filter does options.
func unrouted(control []byte) unix.Errno {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return unix.EINVAL
	}
	for _, m := range messages {
		switch [2]int32{m.Header.Level, m.Header.Type} {
		case [2]int32{unix.SOL_IP, unix.IP_RETOPTS}, [2]int32{unix.SOL_IPV6, unix.IPV6_RTHDR}, [2]int32{unix.SOL_IPV6, unix.IPV6_2292RTHDR}:
			return unix.EPERM
		}
	}
	return 0
}

// transmit is sendmsg(2), which waits if the socket is a blocking one. w.val is
// what it returns.
func (w *worker) transmit(m *message) unix.Errno {
	iov := unix.Iovec{Base: unsafe.SliceData(m.payload), Len: uint64(len(m.payload))}
	h := unix.Msghdr{Name: unsafe.SliceData(m.sa), Namelen: uint32(len(m.sa)), Iov: &iov, Iovlen: 1,
		Control: unsafe.SliceData(m.control), Controllen: uint64(len(m.control))}
	for wait := m.flags&unix.MSG_DONTWAIT == 0 && w.sock.blocking(); ; {
		w.enter()
		n, _, e := unix.Syscall(unix.SYS_SENDMSG, uintptr(w.fd), uintptr(unsafe.Pointer(&h)), uintptr(m.flags|unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL))
		w.leave()
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
