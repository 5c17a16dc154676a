//go:build amd64 || arm64

package seccomp

import (
	"encoding/binary"
	"unsafe"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/fwps"
	"golang.org/x/sys/unix"
)

// accept answers an accept() or accept4(). A connection that is refused is reset
// and the next one taken, as if it had never come.
func (w *worker) accept(flags int) unix.Errno {
	switch e := w.look(); {
	case e != 0:
		return e
	case !w.sock.inet():
		return w.outside(nil)
	case w.sock.datagram():
		return unix.EOPNOTSUPP
	case !w.sock.tcp():
		return w.undecidable()
	case flags&^(unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK) != 0:
		return unix.EINVAL
	}
	if e := w.know(); e != 0 {
		return e
	}
	listening := w.s.opts.ALE.NewSocket(w.in)
	for {
		fd, e := w.waitAccept(flags)
		if e != 0 {
			return e
		}
		e = w.acceptOne(listening, fd, flags)
		w.close(fd)
		if e != refused {
			return e
		}
	}
}

func (w *worker) acceptOne(listening *ale.Socket, fd, flags int) unix.Errno {
	var s socket
	if e := s.look(fd); e != 0 {
		return e
	}
	remote, _ := parse(s.domain, w.sa[:w.saLen])
	local := w.in.Local
	w.in.Remote, w.in.Local, w.in.Protocol = remote, unmapped(s.local), fwps.ProtocolTCP
	flow, err := listening.Accept(w.s.ctx, w.in.Local, unmapped(remote))
	if err == nil && flow.Aborted() { // By a callout; the program has not seen it.
		flow.Close()
		err = ale.ErrAborted
	}
	if err != nil {
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		if e := w.denied(err); e == nobody {
			return e
		}
		w.in.Local = local
		return refused
	}
	flow.Detach()
	if e := w.writeSockaddr(w.n.Data.Args[1], w.n.Data.Args[2], w.sa[:w.saLen]); e != 0 {
		return e
	}
	return w.install(fd, flags)
}

// waitAccept accepts a connection and leaves the peer's address in w.sa.
func (w *worker) waitAccept(flags int) (int, unix.Errno) {
	for blocking := w.sock.blocking(); ; {
		if w.t.full() { // Who waits stays with the kernel.
			return -1, unix.EMFILE
		}
		if blocking && !readable(w.fd) {
			if e := w.park(unix.EPOLLIN, unix.SO_RCVTIMEO); e != 0 {
				if e == unix.EINPROGRESS {
					e = unix.EAGAIN
				}
				return -1, e
			}
			continue
		}
		w.size = uint32(len(w.sa))
		fd, e := w.syscall(unix.SYS_ACCEPT4, uintptr(w.fd), uintptr(unsafe.Pointer(&w.sa)), uintptr(unsafe.Pointer(&w.size)), uintptr(flags|unix.SOCK_CLOEXEC))
		if e == unix.EINTR { // Another process was faster, and it waited.
			continue
		}
		w.saLen = int(min(w.size, uint32(len(w.sa))))
		return int(fd), e
	}
}

// readable reports whether an accept does not wait: also where it has no descriptor for what
// has come, and says so.
func readable(fd int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return err == unix.EINVAL || n == 1
}

// writeSockaddr writes an address as the calls do that return one: cut to the
// room that there is, with its true length.
func (w *worker) writeSockaddr(addr, length uint64, sa []byte) unix.Errno {
	if addr == 0 {
		return 0
	}
	var room [4]byte
	if e := w.read(length, room[:]); e != 0 {
		return e
	}
	n := int32(binary.NativeEndian.Uint32(room[:]))
	if n < 0 {
		return unix.EINVAL
	}
	binary.NativeEndian.PutUint32(room[:], uint32(len(sa)))
	if e := w.write(addr, sa[:min(len(sa), int(n))]); e != 0 {
		return e
	}
	return w.write(length, room[:])
}

// install gives the program a descriptor, whose number is what its call returns.
func (w *worker) install(fd, flags int) unix.Errno {
	n, e := w.s.l.addFD(w.n.ID, fd, flags&unix.SOCK_CLOEXEC != 0)
	switch e {
	case 0:
		w.val = int64(n)
		return 0
	case unix.ENOENT:
		return nobody
	case unix.ENOTTY:
		return w.fail("give it a socket", &enforce.UnsupportedError{Name: "SECCOMP_IOCTL_NOTIF_ADDFD", MinimumKernel: "5.9"})
	}
	return e // EMFILE: another thread was faster.
}
