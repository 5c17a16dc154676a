//go:build amd64 || arm64

package seccomp

import (
	"errors"
	"net/netip"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/fwps"
	"golang.org/x/sys/unix"
)

// Answers that are no error numbers.
const (
	interrupted unix.Errno = 512       // ERESTARTSYS: a signal handler runs first. See worker.check.
	proceed     unix.Errno = 1<<16 + 1 // let the program's own call run
	nobody      unix.Errno = 1<<16 + 2 // the caller is gone: the answer reaches nobody
	refused     unix.Errno = 1<<16 + 3 // a connection that came in was refused: there may be another
)

// answer decides one notification and lets go of what it took for that.
func (w *worker) answer() unix.Errno {
	w.val, w.seen = 0, token{}
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
		fd, err := t.getFD(int32(w.n.Data.Args[0])) // The kernel reads an int.
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

// sockaddr reads the address that the program gave.
func (w *worker) sockaddr(addr uint64, length int32) ([]byte, unix.Errno) {
	if length < 0 || int(length) > len(w.sa) {
		return nil, unix.EINVAL
	}
	w.saLen = int(length)
	sa := w.sa[:length]
	w.enter()
	e := w.t.readMarked(addr, sa, &w.seen)
	w.leave()
	return sa, w.wasRead(e)
}

// read fills b from the program's memory.
func (w *worker) read(addr uint64, b []byte) unix.Errno {
	return w.readVectors([]unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}, b)
}

func (w *worker) readVectors(vectors []unix.RemoteIovec, b []byte) unix.Errno {
	w.enter()
	e := readVectors(w.n.TID, vectors, b)
	w.leave()
	return w.wasRead(e)
}

func (w *worker) wasRead(e unix.Errno) unix.Errno {
	switch e {
	case 0, unix.EFAULT:
		return e
	default:
		return w.fail("read its memory", e)
	}
}

func (w *worker) write(addr uint64, b []byte) unix.Errno {
	w.enter()
	e := writeMemory(w.n.TID, addr, b)
	w.leave()
	switch e {
	case 0, unix.EFAULT:
		return e
	default:
		return w.fail("write its memory", e)
	}
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

// undecidable refuses what only a socket from outside the tree can be.
func (w *worker) undecidable() unix.Errno {
	if e := w.know(); e != 0 {
		return e
	}
	return w.denied(errors.New("seccomp: sockets of this family and protocol cannot be decided on"))
}

// done turns what the ALE said into an answer.
func (w *worker) done(err error) unix.Errno {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*callError](err); ok {
		return e.errno
	}
	return w.denied(err)
}

// denied reports a call that was refused, unless nobody asks for it any more.
func (w *worker) denied(err error) unix.Errno {
	if !w.s.l.valid(&w.n.ID) {
		return nobody
	}
	w.s.opts.OnBlocked(enforce.Denial{PID: w.in.ProcessID, AppID: w.in.AppID, Local: w.in.Local, Remote: w.in.Remote, Err: err})
	return unix.EACCES
}

// fail answers a call that the supervisor could not look into. What it cannot
// see does not happen.
func (w *worker) fail(what string, err error) unix.Errno {
	if !w.s.l.valid(&w.n.ID) {
		return nobody
	}
	hint := ""
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		hint = " (is the program non-dumpable, or another user's?)"
	}
	w.s.opts.Logf("seccomp: thread %d: refused: cannot %s: %v%s", w.n.TID, what, err, hint)
	return unix.EACCES
}

func (w *worker) reply(e unix.Errno) {
	w.r = response{ID: w.n.ID, Error: -int32(e)}
	switch e {
	case 0:
		w.r.Val = w.val
	case proceed:
		w.r.Error, w.r.Flags = 0, unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
	}
	delivered := w.s.l.send(&w.r)
	if w.restartable {
		w.restartable = false
		w.s.restarts.end(w, e, delivered)
	}
}

// A callError is what the kernel answered to a call on the program's behalf.
type callError struct{ errno unix.Errno }

func (e *callError) Error() string {
	if e.errno == nobody {
		return "seccomp: the program was killed while its call was decided on"
	}
	return e.errno.Error()
}

func (e *callError) Unwrap() error { return e.errno }

var (
	errInProgress = &callError{unix.EINPROGRESS}
	errKilled     = &callError{nobody}
)

// callErr returns nil for 0.
func callErr(e unix.Errno) error {
	switch e {
	case 0:
		return nil
	case unix.EINPROGRESS: // The common one does not allocate.
		return errInProgress
	}
	return &callError{e}
}

var noAddr netip.AddrPort
