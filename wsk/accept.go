package wsk

import (
	"net/netip"
	"slices"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// An accept is a WskAccept that is pended.
type accept struct {
	c             call
	context       any
	dispatch      *ClientConnectionDispatch
	local, remote *netip.AddrPort
	cancelled     bool
}

// take makes a the socket of a WskAccept.
func (w *accept) take(a *Socket) {
	a.attach(w.context, w.dispatch)
	if t := w.c.irp.trail; t != nil {
		a.madeAt = t.used
	}
	if w.local != nil {
		*w.local = a.local
	}
	if w.remote != nil {
		*w.remote = a.inFamily(a.conn.Remote())
	}
	w.c.irp.setSocket(a)
}

// discard closes a socket that no client has seen.
func (s *Socket) discard() {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.shutdown(0)
	s.client.remove(s)
}

// Accept is WskAccept: the IRP's Socket is the accepted one, a connection
// socket with the given context and table. A connection that waits completes
// the call at once, else it pends (WSK-ACCEPT-01). local and remote, which may
// be nil, are filled before the IRP is completed. flags must be zero.
func (s *Socket) Accept(flags uint32, acceptContext any, dispatch *ClientConnectionDispatch,
	local, remote *netip.AddrPort, irp *IRP) (st ntstatus.Status) {
	if t := s.client.tracer.Load(); t != nil {
		defer t.called(s, irp, &st, "WskAccept", "flags %#x", flags)
	}
	c, st := s.enter(opAccept, irp)
	if st != ntstatus.Success {
		return st
	}
	if flags != 0 {
		return c.done(ntstatus.InvalidParameter, 0)
	}
	s.mu.Lock()
	l := s.listener
	s.mu.Unlock()
	if l == nil {
		return c.done(ntstatus.InvalidDeviceState, 0)
	}
	return l.accept(&accept{c: c, context: acceptContext, dispatch: dispatch, local: local, remote: remote})
}

func (l *listener) accept(w *accept) ntstatus.Status {
	if a := l.pop(nil); a != nil {
		w.take(a)
		return w.c.done(ntstatus.Success, 0)
	}
	w.c.irp.pend(func() { l.cancel(w) }) // Before w can be completed.
	if a := l.pop(w); a != nil {         // It came meanwhile.
		w.take(a)
		w.c.finish(ntstatus.Success, 0)
	}
	return ntstatus.Pending
}

// pop returns the socket that is ready longest. If there is none, w waits, or
// is completed if it cannot wait any more.
func (l *listener) pop(w *accept) *Socket {
	l.mu.Lock()
	if len(l.ready) > 0 {
		a := l.ready[0]
		l.ready = slices.Delete(l.ready, 0, 1)
		l.mu.Unlock()
		<-l.slots
		return a
	}
	over := w != nil && (l.stopped || w.cancelled)
	if w != nil && !over {
		l.waiting = append(l.waiting, w)
	}
	l.mu.Unlock()
	if over {
		w.c.finish(ntstatus.Cancelled, 0)
	}
	return nil
}

// cancel ends one accept and leaves the others alone.
func (l *listener) cancel(w *accept) {
	l.mu.Lock()
	w.cancelled = true
	i := slices.Index(l.waiting, w)
	if i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
	}
	l.mu.Unlock()
	if i >= 0 {
		w.c.finish(ntstatus.Cancelled, 0)
	}
}
