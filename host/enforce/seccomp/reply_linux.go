//go:build amd64 || arm64

package seccomp

import (
	"errors"
	"fmt"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"golang.org/x/sys/unix"
)

// Answers that are no error numbers.
const (
	interrupted unix.Errno = 512       // ERESTARTSYS: a signal handler runs first. See worker.check.
	proceed     unix.Errno = 1<<16 + 1 // let the program's own call run
	nobody      unix.Errno = 1<<16 + 2 // the caller is gone: the answer reaches nobody
	refused     unix.Errno = 1<<16 + 3 // a connection that came in was refused: there may be another
)

// done turns what the ALE said into an answer.
func (w *worker) done(err error) unix.Errno {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*callError](err); ok {
		return e.errno
	}
	if err == ale.ErrAborted {
		return unix.ECONNRESET
	}
	return w.denied(err)
}

// denied reports a call that was refused, unless nobody asks for it any more.
func (w *worker) denied(err error) unix.Errno {
	if !w.s.l.valid(&w.n.ID) {
		return nobody
	}
	if tell := w.s.opts.OnBlocked; tell != nil {
		tell(enforce.Denial{PID: w.in.ProcessID, AppID: w.in.AppID, Local: w.in.Local, Remote: w.in.Remote, Err: err})
	}
	return unix.EACCES
}

// undecidable refuses what only a socket from outside the tree can be.
func (w *worker) undecidable() unix.Errno {
	if e := w.know(); e != 0 {
		return e
	}
	return w.denied(errors.New("seccomp: sockets of this family and protocol cannot be decided on"))
}

// fail answers a call that the supervisor could not look into. What it cannot
// see does not happen: which program that is and where it wanted to go is not known then.
func (w *worker) fail(what string, err error) unix.Errno {
	if !w.s.l.valid(&w.n.ID) {
		return nobody
	}
	hint := ""
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		hint = " (is the program non-dumpable, or another user's?)"
	}
	d := enforce.Denial{PID: w.n.TID, Err: fmt.Errorf("seccomp: cannot %s: %w%s", what, err, hint)}
	if w.t != nil {
		d.PID = w.t.pid
	}
	if tell := w.s.opts.OnBlocked; tell != nil {
		tell(d)
	} else {
		w.s.log.Printf("seccomp: process %d: refused: %v", d.PID, d.Err)
	}
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
