//go:build amd64 || arm64

package seccomp

import (
	"context"
	"errors"
	"net/netip"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/fwps"
	"golang.org/x/sys/unix"
)

// connect answers a connect(). The order of the checks is the kernel's.
func (w *worker) connect() unix.Errno {
	sa, e := w.sockaddr(w.n.Data.Args[1], int32(w.n.Data.Args[2]))
	if e != 0 {
		return e
	}
	if e := w.sock.look(w.fd); e != 0 {
		return e
	}
	if !w.s.l.valid(&w.n.ID) { // All of the above may have been about a thread that took over the number.
		return nobody
	}
	switch {
	case w.sock.tcp():
		return w.connectTCP(sa)
	case w.sock.inet() && (w.sock.kind == unix.SOCK_DGRAM || w.sock.kind == unix.SOCK_RAW):
		// UDP, ping, raw: not classified yet. A connect only sets an address.
		return sysConnect(w.fd, sa)
	case w.sock.inet(): // Inherited: the filter lets nobody make one.
		return w.denied(errors.New("seccomp: a connect of this protocol cannot be decided on"))
	case w.sock.domain == unix.AF_UNIX, w.sock.domain == unix.AF_NETLINK, w.sock.domain == unix.AF_ALG:
		return proceed // The credentials and the working directory must be the program's.
	}
	return w.denied(errors.New("seccomp: a connect of this address family cannot be decided on"))
}

func (w *worker) connectTCP(sa []byte) unix.Errno {
	if family(sa) == unix.AF_UNSPEC && len(sa) >= 2 {
		return sysConnect(w.fd, sa) // Disconnect.
	}
	if !w.s.l.killable {
		e, ok := w.s.restarts.begin(w)
		if ok && (e != 0 || sysConnect(w.fd, nowhere) == unix.EISCONN) { // Not disconnected since.
			return e
		}
	}
	// The socket itself says whether it may connect at all. The address given
	// here is too short to go anywhere: EINVAL is the answer of a socket that is
	// ready. Performing the original instead would be a race: another thread may
	// disconnect the socket meanwhile, and it would connect undecided.
	if e := w.waitConnect(nowhere); e != unix.EINVAL {
		return e
	}
	remote, e := parse(int(w.sock.domain), sa)
	if e != 0 {
		return e
	}
	w.in.Protocol, w.in.EndpointID = fwps.ProtocolTCP, w.sock.cookie
	w.in.Remote, w.in.Local = remote, w.sock.local
	return w.decide()
}

// decide runs a TCP connect through the ALE.
func (w *worker) decide() unix.Errno {
	w.connected = false
	flow, err := w.s.opts.ALE.Connect(w.s.ctx, w)
	if flow != nil {
		flow.Detach() // The program closes the socket, and nobody tells us.
	}
	if err != nil {
		if e, ok := errors.AsType[*connectError](err); ok {
			return e.errno
		}
		return w.denied(err)
	}
	if !w.connected { // An ALE that let nothing go: success would be a lie.
		return w.denied(errors.New("seccomp: the decision was neither a block nor a connect"))
	}
	return 0
}

// Incoming says what is known about the socket. With Connect it makes a worker
// the ale.Endpoint of the call that it answers.
func (w *worker) Incoming() fwps.Incoming { return w.in }

// Connect connects the program's socket, waiting if it is a blocking one.
func (w *worker) Connect(_ context.Context, to netip.AddrPort) (netip.AddrPort, error) {
	if w.s.l.killable && !w.s.l.valid(&w.n.ID) {
		return netip.AddrPort{}, errKilled
	}
	sa := w.sa[:w.saLen] // It may have a scope and a flow label.
	if to != w.in.Remote {
		if err := w.reach(to); err != nil {
			return netip.AddrPort{}, err
		}
		sa = putSockaddr(w.to[:], int(w.sock.domain), to)
	}
	if !to.Addr().Unmap().IsLoopback() && w.sock.blocking() {
		w.s.relieve(w)
	}
	e := w.waitConnect(sa)
	if e == unix.EINPROGRESS && to != w.in.Remote {
		e = w.soFar()
	}
	if e != 0 && !inProgress(e) {
		return netip.AddrPort{}, failedConnect(e)
	}
	w.connected = true
	_, local, _ := getName(w.fd)
	if e != 0 {
		return local, failedConnect(e)
	}
	return local, nil
}

// soFar is what a redirected connect in progress has come to. A proxy of this
// host that is gone has refused it by now, and here it is known whose redirect
// that was; later only the program would hear of it.
func (w *worker) soFar() unix.Errno {
	const closed = 7 // TCP_CLOSE
	var state [1]byte
	if getOption(w.fd, unix.IPPROTO_TCP, unix.TCP_INFO, &state); state[0] != closed {
		return unix.EINPROGRESS
	}
	if e := sysConnect(w.fd, nowhere); e != unix.EINVAL {
		return e
	}
	return unix.ECONNABORTED // Another thread disconnected it.
}

// reach prepares the socket for a redirect, which it may be unable to follow.
func (w *worker) reach(to netip.AddrPort) error {
	if netns(w.fd) != w.s.home {
		return errors.New("seccomp: the socket is in a network namespace of its own, from which a redirect does not arrive")
	}
	if to.Addr().Unmap().IsLoopback() && w.sock.reachLoopback() != 0 {
		return failedConnect(unix.ENETUNREACH)
	}
	return nil
}

// denied reports a connect that was refused, unless nobody asked for it any more.
func (w *worker) denied(err error) unix.Errno {
	if !w.s.l.valid(&w.n.ID) {
		return nobody
	}
	w.s.opts.OnBlocked(enforce.Denial{PID: w.in.ProcessID, AppID: w.in.AppID, Remote: w.in.Remote, Err: err})
	return unix.EACCES
}

// A connectError is what the kernel answered to a connect.
type connectError struct{ errno unix.Errno }

func (e *connectError) Error() string {
	if e.errno == nobody {
		return "seccomp: the program was killed while its connect was decided on"
	}
	return e.errno.Error()
}

func (e *connectError) Unwrap() error { return e.errno }

// Is reports a connect that goes on as ale.ErrInProgress.
func (e *connectError) Is(target error) bool {
	return target == ale.ErrInProgress && inProgress(e.errno)
}

func inProgress(e unix.Errno) bool { return e == unix.EINPROGRESS || e == interrupted }

var (
	errInProgress = &connectError{unix.EINPROGRESS}
	errKilled     = &connectError{nobody}
)

func failedConnect(e unix.Errno) *connectError {
	if e == unix.EINPROGRESS {
		return errInProgress // The common one does not allocate.
	}
	return &connectError{e}
}
