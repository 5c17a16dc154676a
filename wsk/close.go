package wsk

import (
	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/transport"
)

// CloseSocket is WskCloseSocket. It is legal when no other call executes on the
// socket; IRPs that are pending are cancelled and completed first
// (WSK-CLOSE-01, WSK-CLOSE-03). A connection that is not disconnected both ways
// is reset (WSK-CLOSE-02).
func (s *Socket) CloseSocket(irp *IRP) (st ntstatus.Status) {
	if t := s.client.tracer.Load(); t != nil {
		defer t.called(s, irp, &st, "WskCloseSocket", "")
	}
	c, st := s.enter(opCloseSocket, irp)
	if st != ntstatus.Success {
		return st
	}
	s.mu.Lock()
	twice := s.closing
	s.closing = true
	s.mu.Unlock()
	if twice {
		return c.done(ntstatus.FileForcedClosed, 0)
	}
	return c.pend(nil, func() (ntstatus.Status, int) {
		s.shutdown(1)
		return ntstatus.Success, 0
	})
}

// shutdown ends everything on a closing socket and waits until no more calls
// than its own are left.
func (s *Socket) shutdown(own int) {
	s.cancel()
	s.ctl.stop()
	s.recv.stop()
	s.send.stop() // The last: a send that is cut off aborts the connection.
	s.mu.Lock()
	l := s.listener
	s.mu.Unlock()
	if l != nil {
		l.close()
	}
	hungUp := s.hangUp()
	s.recv.join()
	s.mu.Lock()
	for s.calls > own {
		s.idle.Wait()
	}
	s.letGo()
	s.mu.Unlock()
	if !hungUp { // A connect may have ended meanwhile.
		s.hangUp()
	}
	defer func() { // Also when it panics; see call.run.
		s.mu.Lock()
		s.over = true
		s.mu.Unlock()
	}()
	s.closeALE()
}

// hangUp closes the connection, if there is one, with a reset unless both sides are
// done.
func (s *Socket) hangUp() bool {
	s.mu.Lock()
	conn, sent, read := s.conn, s.finSent, s.in.finRead
	s.mu.Unlock()
	if conn == nil {
		return false
	}
	if !sent || !read && !transport.PeerDone(conn) {
		conn.SetLinger(0)
	}
	conn.Close()
	return true
}
