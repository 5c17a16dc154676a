package wsk

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/transport"
)

// maxUnaccepted bounds the connections of a listener that are being taken
// through the layers or wait for a WskAccept. Beyond it the system's own
// backlog holds them.
const maxUnaccepted = 1024

// maxAccepting is how many goroutines of a listener may wait for a connection.
const maxAccepting = 16

// A listener accepts for a listening socket, whether or not it is asked to:
// each connection goes through AUTH_RECV_ACCEPT on a goroutine that does nothing
// else meanwhile, so that a slow decision delays nobody else.
type listener struct {
	s         *Socket
	ln        *transport.Listener
	slots     chan struct{}
	wg        sync.WaitGroup
	accepting atomic.Int32 // goroutines that wait for a connection

	mu      sync.Mutex
	ready   []*Socket
	waiting []*accept
	pended  map[InspectID]chan InspectAction
	stopped bool
}

// listen makes a bound socket listen, if AUTH_LISTEN lets it.
func (s *Socket) listen(ctx context.Context) error {
	return s.ale.Listen(ctx, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closing {
			return net.ErrClosed
		}
		ln, err := s.bound.Listen()
		if err != nil {
			return err
		}
		s.local, s.state = s.inFamily(ln.Local()), listening
		if s.category == StreamSocket {
			s.role = ListenSocket
		}
		if s.opts.conditional {
			s.events.enabled |= eventInspect
		}
		s.listener = &listener{s: s, ln: ln, slots: make(chan struct{}, maxUnaccepted), pended: map[InspectID]chan InspectAction{}}
		s.listener.start()
		return nil
	})
}

// Listen is WskListen, for a bound stream socket (WSK-LISTEN-01).
func (s *Socket) Listen(irp *IRP) (st ntstatus.Status) {
	if t := s.client.tracer.Load(); t != nil {
		defer t.called(s, irp, &st, "WskListen", "")
	}
	c, st := s.enter(opListen, irp)
	if st != ntstatus.Success {
		return st
	}
	if !s.move(bound, binding) {
		return c.done(ntstatus.InvalidDeviceState, 0)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	return c.pend(cancel, func() (ntstatus.Status, int) {
		defer cancel()
		if err := s.listen(ctx); err != nil {
			s.move(binding, bound)
			return s.ended(ctx, err), 0
		}
		s.kick()
		return ntstatus.Success, 0
	})
}

// start adds a goroutine that accepts. There is always one: who takes the last one's
// place starts the next, and who has admitted a connection accepts again, on the
// stack that it has, unless enough do.
func (l *listener) start() {
	l.accepting.Add(1)
	l.wg.Go(func() {
		for conn := l.next(); conn != nil; conn = l.next() {
			if l.accepting.Add(-1) == 0 {
				l.start()
			}
			l.admit(conn)
			if n := l.accepting.Load(); n >= maxAccepting || !l.accepting.CompareAndSwap(n, n+1) {
				return // Others are at it.
			}
		}
	})
}

// next waits for a connection; nil is the end of the listener. What fails for another
// reason, such as a lack of descriptors, is tried again after a while.
func (l *listener) next() *transport.Conn {
	const longest = time.Second
	wait := time.Millisecond
	for {
		select {
		case l.slots <- struct{}{}:
		case <-l.s.ctx.Done():
			return nil
		}
		conn, err := l.ln.Accept()
		switch {
		case err == nil:
			return conn
		case errors.Is(err, net.ErrClosed):
			return nil
		}
		<-l.slots
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-l.s.ctx.Done():
			t.Stop()
			return nil
		}
		wait = min(2*wait, longest)
	}
}

// admit takes a connection through the layers; one that they block is reset.
func (l *listener) admit(conn *transport.Conn) {
	id, ok := l.inspect(conn)
	if !ok {
		l.drop(conn)
		return
	}
	flow, err := l.s.ale.Accept(l.s.ctx, l.s.inFamily(conn.Local()), l.s.inFamily(conn.Remote()))
	if err != nil {
		l.drop(conn)
		return
	}
	a := newSocket(l.s.client, l.s.family, ConnectionSocket, l.s.owner)
	a.accepted, a.state, a.conn, a.flow, a.inspectID = true, connected, conn, flow, id
	a.local = a.inFamily(conn.Local())
	flow.OnAbort(a.abort)
	l.deliver(a)
}

func (l *listener) drop(conn *transport.Conn) {
	<-l.slots
	conn.SetLinger(0)
	conn.Close()
}

// close ends the listener and what waits in it. The socket's ctx has ended.
func (l *listener) close() {
	l.ln.Close()
	l.mu.Lock()
	l.stopped = true
	waiting, ready := l.waiting, l.ready
	l.waiting, l.ready = nil, nil
	l.mu.Unlock()
	for _, w := range waiting {
		w.c.finish(ntstatus.Cancelled, 0)
	}
	for _, a := range ready {
		a.discard()
	}
	l.wg.Wait()
}
