//go:build amd64 || arm64

package seccomp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// What an isolated program of several threads does with sockets that need no
// decision, the supervisor does for it: see worker.outside. The other side of an
// AF_UNIX socket sees the supervisor's process number, and netlink its rights: what is
// sent so must not borrow them.

// connectLocal connects a socket that is no IP socket.
func (w *worker) connectLocal(sa []byte) unix.Errno {
	sa, done, e := w.resolve(sa)
	if e != 0 {
		return e
	}
	defer done()
	if w.sock.blocking() {
		w.s.relieve(w)
	}
	for w.patience(unix.SO_SNDTIMEO); ; {
		e := w.sysConnect(sa)
		if e != unix.EINTR {
			return e
		}
		// The backlog is full, and nothing tells when it is not.
		if e := w.check(time.Now()); e == unix.EINPROGRESS {
			return unix.EAGAIN
		} else if e != 0 {
			return e
		}
	}
}

// resolve turns the path of an AF_UNIX address, which is in the program's
// directories, into one that names the same socket here.
func (w *worker) resolve(sa []byte) (_ []byte, done func(), e unix.Errno) {
	done = func() {}
	if e := w.sameUser(); e != 0 {
		return nil, done, e
	}
	if len(sa) <= 2 || family(sa) != unix.AF_UNIX || sa[2] == 0 { // Abstract names are the namespace's.
		return sa, done, 0
	}
	if needs := w.s.capabilities & toFind; needs != 0 && w.lacks(needs) {
		return nil, done, w.fail("find a socket for it", errors.New("it has given up rights that the supervisor has"))
	}
	path, _, _ := bytes.Cut(sa[2:], []byte{0})
	base, how := "cwd", unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS} // They would be this process's.
	switch {
	case path[0] == '/':
		base, how.Resolve = "root", unix.RESOLVE_IN_ROOT
	case !w.t.sharesRoot():
		how.Resolve = unix.RESOLVE_BENEATH // ".." would leave its root for ours.
	}
	dir, err := unix.Openat(w.t.dir, base, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, done, w.fail("find its directory", err)
	}
	defer unix.Close(dir)
	w.enter()
	fd, err := unix.Openat2(dir, string(path), &how)
	w.leave()
	if err != nil {
		return nil, done, errnoOf(err)
	}
	here := append(binary.NativeEndian.AppendUint16(nil, unix.AF_UNIX), "/proc/self/fd/"+strconv.Itoa(fd)+"\x00"...)
	return here, func() { unix.Close(fd) }, 0
}

// sameUser refuses to act for a program of another user: it would have the
// supervisor's rights.
func (w *worker) sameUser() unix.Errno {
	if e := w.know(); e != 0 {
		return e
	}
	if w.in.UserID != w.s.user {
		return w.fail("act for it", errors.New("it has become another user than the supervisor"))
	}
	return 0
}

// sendLocal sends on a socket that needs no decision: one that is no IP socket,
// or that is connected. On a stream it goes on until all is sent.
func (w *worker) sendLocal(m *message) unix.Errno {
	var kind int32
	if e := getOption(w.fd, unix.SOL_SOCKET, unix.SO_TYPE, &kind); e != 0 {
		return e
	}
	stream := kind == unix.SOCK_STREAM
	if m.size > maxLocal && !stream {
		return unix.EMSGSIZE
	}
	sa, done, e := w.resolve(m.sa)
	if e != 0 {
		return e
	}
	defer done()
	control, passed, e := w.translate(m.control)
	defer closeAll(passed)
	if e != 0 {
		return e
	}
	if w.sock.domain == unix.AF_NETLINK {
		if sa, e = toKernel(sa); e != 0 {
			return e
		}
	}
	m.sa, m.control, m.flags = sa, control, m.flags&^unix.MSG_ZEROCOPY
	sent := int64(0)
	for {
		if e := w.fetch(m, min(m.size, maxLocal)); e != 0 {
			return e
		}
		n, e := w.sendPiece(m, stream)
		if e != 0 && sent+n == 0 {
			return w.brokenPipe(e, stream && m.flags&unix.MSG_NOSIGNAL == 0)
		}
		sent += n
		if w.val = sent; e != 0 || m.size == 0 {
			return 0
		}
	}
}

// toKernel leaves the address of the kernel out. With it netlink asks only what the sender
// may, and that is this process; without it also what the one may who made the socket.
func toKernel(sa []byte) ([]byte, unix.Errno) {
	const portID, groups = 4, 8 // struct sockaddr_nl
	switch {
	case len(sa) < unix.SizeofSockaddrNetlink || binary.NativeEndian.Uint32(sa[portID:]) != 0:
		return sa, 0 // Nowhere, or to another program.
	case binary.NativeEndian.Uint32(sa[groups:]) != 0:
		return nil, unix.EPERM
	}
	return nil, 0
}

// sendPiece sends the payload and says how much of it, which is less only on a
// stream that fails or does not wait.
func (w *worker) sendPiece(m *message, stream bool) (sent int64, e unix.Errno) {
	if e := w.routes(m.payload); e != 0 {
		return 0, e
	}
	for {
		if e := w.transmit(m); e != 0 {
			return sent, e
		}
		sent += w.val
		m.control = nil // It went with the first piece.
		if m.payload = m.payload[w.val:]; !stream || len(m.payload) == 0 {
			return sent, 0
		}
	}
}

// brokenPipe sends the signal that goes with EPIPE.
func (w *worker) brokenPipe(e unix.Errno, signal bool) unix.Errno {
	if e == unix.EPIPE && signal && w.s.l.valid(&w.n.ID) {
		_ = unix.Tgkill(int(w.t.pid), int(w.t.tid), unix.SIGPIPE)
	}
	return e
}

// translate replaces the descriptors in a control message by copies in this
// process, and leaves credentials out, which would not be this process's.
func (w *worker) translate(control []byte) (out []byte, passed []int, e unix.Errno) {
	if w.sock.domain != unix.AF_UNIX || len(control) == 0 {
		return control, nil, 0
	}
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, nil, unix.EINVAL
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return nil, passed, unix.EINVAL
		}
		for _, fd := range fds {
			own, err := w.getFD(int32(fd))
			if err != nil {
				return nil, passed, errnoOf(err)
			}
			passed = append(passed, own)
		}
	}
	if len(passed) > 0 {
		out = unix.UnixRights(passed...)
	}
	return out, passed, 0
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// routes refuses to change the routes of this system: a routing socket is made
// outside of the namespace, and the supervisor may have the right.
func (w *worker) routes(payload []byte) unix.Errno {
	if w.sock.domain != unix.AF_NETLINK {
		return 0
	}
	var protocol int32
	if e := getOption(w.fd, unix.SOL_SOCKET, unix.SO_PROTOCOL, &protocol); e != 0 {
		return e
	}
	if protocol == unix.NETLINK_ROUTE && !onlyReads(payload) {
		return unix.EPERM
	}
	return 0
}

// onlyReads reports whether routing messages only ask.
func onlyReads(payload []byte) bool {
	for len(payload) >= unix.SizeofNlMsghdr {
		length := int(binary.NativeEndian.Uint32(payload))
		kind := binary.NativeEndian.Uint16(payload[4:])
		get := kind >= unix.RTM_BASE && kind&3 == 2
		if length < unix.SizeofNlMsghdr || !get && kind != unix.NLMSG_NOOP && kind != unix.NLMSG_DONE {
			return false
		}
		payload = payload[min(len(payload), (length+3)&^3):]
	}
	return true
}
