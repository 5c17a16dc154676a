//go:build amd64 || arm64

package seccomp

import (
	"errors"
	"net/netip"

	"github.com/calloutd/calloutd/host/fwps"
	"golang.org/x/sys/unix"
)

// answer decides one notification and lets go of what it took for that.
func (w *worker) answer() unix.Errno {
	w.val, w.seen, w.chosen, w.came = 0, token{}, choice{}, noAddr.Addr()
	switch w.n.Data.NR {
	case unix.SYS_SETGROUPS:
		w.s.targets.forget(w.n.TID)
		return proceed
	case unix.SYS_SOCKET:
		return w.makeSocket()
	}
	e := w.take()
	if e == 0 {
		e = w.call()
	}
	if w.fd >= 0 { // Before the reply: the program may count on having the last reference.
		w.close(w.fd)
		w.fd = -1
	}
	if w.t != nil {
		w.s.targets.give(w.t)
		w.t = nil
	}
	return e
}

func (w *worker) call() unix.Errno {
	switch w.n.Data.NR {
	case unix.SYS_CONNECT:
		return w.connect()
	case unix.SYS_SENDTO:
		return w.sendto()
	case unix.SYS_SENDMSG:
		return w.sendmsg()
	case unix.SYS_SENDMMSG:
		return w.sendmmsg()
	case unix.SYS_BIND:
		return w.bind()
	case unix.SYS_LISTEN:
		return w.listen()
	case unix.SYS_ACCEPT:
		return w.accept(0)
	case unix.SYS_ACCEPT4:
		return w.accept(int(int32(w.n.Data.Args[3])))
	case unix.SYS_GETPEERNAME:
		return w.getpeername()
	case unix.SYS_GETSOCKNAME:
		return w.getsockname()
	}
	return w.fail("answer", errors.New("a system call that is not trapped"))
}

// take gets hold of the calling thread and of its socket.
func (w *worker) take() unix.Errno {
	for {
		t, cached, err := w.s.targets.take(w.n.TID)
		if err != nil {
			return w.fail("open the thread", err)
		}
		w.t = t
		w.holder.Store(t.pid)
		if e := w.takeTurn(); e != 0 {
			return e
		}
		fd, err := w.getFD(int32(w.n.Data.Args[0])) // The kernel reads an int.
		if err == nil {
			w.fd = fd
			return 0
		}
		if err == unix.ESRCH && cached { // It was a former thread of that number.
			t.close()
			w.t = nil
			continue
		}
		if err == unix.EBADF {
			return unix.EBADF
		}
		return w.fail("look into the program", err)
	}
}

// getFD waits while the process execs, and a file that it closes for that does not let go.
func (w *worker) getFD(fd int32) (int, error) {
	w.enter()
	defer w.leave()
	return w.t.getFD(fd)
}

// know fills w.in with who is calling, about which socket. All that was read up
// to here may have been about a thread that took over the number: that nobody
// has is settled now.
func (w *worker) know() unix.Errno {
	w.enter()
	id, err := w.t.identify(&w.seen, w.path[:])
	w.leave()
	if err != nil {
		return w.fail("identify the program", err)
	}
	if !w.s.l.valid(&w.n.ID) {
		w.t.mark = mark{} // It may be of one program, and the rest of another.
		return nobody
	}
	w.in = fwps.Incoming{ProcessID: w.t.pid, AppID: id.exe, UserID: id.uid, Groups: id.groups, UserKnown: true,
		Protocol: uint8(w.sock.protocol), EndpointID: w.sock.cookie, Local: w.sock.local}
	return 0
}

// outside answers a call about what is no IP socket, which the program's own
// call does best: the credentials and the directories are its. Isolated programs
// may do that only where no other thread can put an IP socket in its place; else
// perform does it.
func (w *worker) outside(perform func() unix.Errno) unix.Errno {
	switch w.sock.domain {
	case unix.AF_UNIX, unix.AF_NETLINK, unix.AF_ALG:
	default:
		return w.undecidable()
	}
	if !w.s.opts.Isolate || perform == nil || w.t.alone() {
		return proceed
	}
	return perform()
}

var noAddr netip.AddrPort
