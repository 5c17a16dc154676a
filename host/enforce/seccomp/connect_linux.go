//go:build amd64 || arm64

package seccomp

import (
	"context"
	"errors"
	"net/netip"

	"github.com/calloutd/calloutd/host/ale"
	"golang.org/x/sys/unix"
)

// connect answers a connect(). The order of the checks is the kernel's.
func (w *worker) connect() unix.Errno {
	sa, e := w.sockaddr(w.n.Data.Args[1], int32(w.n.Data.Args[2]))
	if e != 0 {
		return e
	}
	switch e := w.look(); {
	case e != 0:
		return e
	case !w.sock.inet():
		return w.outside(func() unix.Errno { return w.connectLocal(sa) })
	case !w.sock.tcp() && !w.sock.datagram():
		return w.undecidable()
	}
	if e := w.know(); e != 0 {
		return e
	}
	if family(sa) == unix.AF_UNSPEC && len(sa) >= 2 {
		w.named(&w.s.names.peers, false)
		return w.sysConnect(sa) // Disconnect.
	}
	if w.sock.datagram() {
		return w.connectDatagram(sa)
	}
	return w.connectTCP(sa)
}

func (w *worker) connectTCP(sa []byte) unix.Errno {
	if !w.s.l.killable {
		e, ok := w.s.restarts.begin(w)
		if ok && (e != 0 || w.sysConnect(nowhere) == unix.EISCONN) { // Not disconnected since.
			return e
		}
	}
	// The socket itself says whether it may connect at all. The address given
	// here is too short to go anywhere: EINVAL is the answer of a socket that is
	// ready. Performing the original instead would be a race: another thread may
	// disconnect the socket meanwhile, and it would connect undecided. One without a
	// port need not be asked: it has never begun to connect or to listen, and keeps its
	// port when that has failed.
	if w.sock.local.Port() != 0 {
		if e := w.waitConnect(nowhere); e != unix.EINVAL {
			return e
		}
	}
	remote, e := parse(w.sock.domain, sa)
	if e != 0 {
		return e
	}
	w.in.Remote = w.concrete(sa, remote)
	w.pending = 0
	flow, err := w.carrier.Connect(w.s.ctx, w.in, w.bindTo, w.connectTo)
	if errors.Is(err, ale.ErrAborted) {
		e := w.reset()
		if _, refused := errors.AsType[*ale.BlockedError](err); refused {
			e = w.denied(err)
		}
		return e
	}
	if flow != nil {
		w.s.underway.follow(w.fd, w.sock.cookie, flow)
		w.s.endable(w, flow, func(its *socket) bool { return unmapped(its.local) == flow.Local })
	}
	if e := w.done(err); e != 0 {
		return e
	}
	return w.pending
}

// reset ends the connection that a callout aborted. The program hears what it would of
// one that is reset as soon as it is there.
func (w *worker) reset() unix.Errno {
	if e := w.sysConnect(disconnect); e != 0 {
		return e
	}
	_, _ = unix.GetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_ERROR) // It is told now, and once.
	return unix.ECONNRESET
}

// endable has a connection ended that a callout aborts after its connect() has returned: one of
// TCP in progress, or as soon as it is established, and any of datagrams. The program has the
// socket, by the number that it had in the call, and still reports whether it is that connection's.
func (s *supervisor) endable(w *worker, f *ale.Flow, still func(its *socket) bool) {
	threads, fd, cookie := [...]uint32{w.t.tid, w.t.pid}, int32(w.n.Data.Args[0]), w.sock.cookie
	f.OnAbort(func() {
		for _, tid := range threads { // One that is gone leaves the other.
			if s.endOf(tid, fd, cookie, still) {
				return
			}
		}
		s.opts.Logf("seccomp: process %d: a callout aborted its connection to %s, whose socket it has no longer by the number %d: it goes on where another has it", threads[1], f.Remote, fd)
	})
}

// endOf ends a connection of a thread's, if it has that socket: one that the socket has left
// has ended.
func (s *supervisor) endOf(tid uint32, fd int32, cookie uint64, still func(its *socket) bool) bool {
	t, err := s.targets.open(tid)
	if err != nil {
		return false
	}
	defer t.close()
	own, err := t.getFD(fd)
	if err != nil {
		return false
	}
	defer unix.Close(own)
	var its socket
	if its.look(own) != 0 || its.cookie != cookie {
		return false
	}
	return !still(&its) || sysConnect(own, disconnect) == 0
}

// perform is the ale.ConnectFunc of TCP. It waits if the socket is a blocking one.
func (w *worker) perform(ctx context.Context, to ale.Target) (netip.AddrPort, error) {
	if w.s.l.killable && !w.s.l.valid(&w.n.ID) {
		return noAddr, errKilled
	}
	if to.Local.IsValid() { // A callout chose the source (CH-07).
		if _, err := w.performBind(ctx, to.Local); err != nil {
			return noAddr, err
		}
	}
	sa, err := w.toward(to.Remote)
	if err != nil {
		return noAddr, err
	}
	if p := w.s.opts.Handoff.Find(unmapped(to.Remote)); p != nil && to.Remote != w.in.Remote {
		return w.handOff(p, to, sa)
	}
	if !to.Remote.Addr().Unmap().IsLoopback() && w.sock.blocking() {
		w.s.relieve(w)
	}
	e := w.waitConnect(sa)
	if e == unix.EINPROGRESS {
		e = w.soFar(to.Remote != w.in.Remote)
	}
	w.named(&w.s.names.peers, to.Remote != w.in.Remote)
	local, _ := w.local()
	return local, callErr(e)
}

// toward returns the address to use for a destination, and prepares the socket
// for a redirect, which it may be unable to follow.
func (w *worker) toward(to netip.AddrPort) ([]byte, error) {
	if to == w.in.Remote {
		return w.sa[:w.saLen], nil // It may have a scope and a flow label.
	}
	if netns(w.fd) != w.s.home {
		return nil, errors.New("seccomp: the socket is in a network namespace of its own, from which a redirect does not arrive")
	}
	if to.Addr().Unmap().IsLoopback() && w.reachLoopback() != 0 {
		return nil, callErr(unix.ENETUNREACH)
	}
	return putSockaddr(w.to[:], w.sock.domain, to), nil
}

// soFar is what a connect in progress has come to. One to this host has an
// outcome by now, although the program is told that it is in progress: the flow
// is established; or a proxy is gone, and here it is known whose redirect that
// was, while later only the program would hear of it.
func (w *worker) soFar(redirected bool) unix.Errno {
	switch state := w.tcpState(); {
	case state == tcpSynSent, state == tcpClose && !redirected:
		return unix.EINPROGRESS
	case state != tcpClose: // The peer may have ended it already.
		w.pending = unix.EINPROGRESS
		return 0
	}
	if e := w.sysConnect(nowhere); e != unix.EINVAL {
		return e
	}
	return unix.ECONNABORTED // Another thread disconnected it.
}

// Is reports a connect that goes on as ale.ErrInProgress.
func (e *callError) Is(target error) bool {
	return target == ale.ErrInProgress && inProgress(e.errno)
}

func inProgress(e unix.Errno) bool { return e == unix.EINPROGRESS || e == interrupted }
