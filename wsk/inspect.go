package wsk

import (
	"sync/atomic"

	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/transport"
)

// InspectID is WSK_INSPECT_ID: it names a connection that WskInspectEvent saw.
type InspectID struct {
	Key          uint64
	SerialNumber uint32
}

// Append appends the structure's bytes to b.
func (id InspectID) Append(b []byte) []byte {
	b = le.AppendUint64(b, id.Key)
	return le.AppendUint64(b, uint64(id.SerialNumber))
}

// InspectAction is WSK_INSPECT_ACTION.
type InspectAction uint32

// What to do with a connection.
const (
	InspectReject InspectAction = 0 // WskInspectReject
	InspectAccept InspectAction = 1 // WskInspectAccept
	InspectPend   InspectAction = 2 // WskInspectPend: InspectComplete will say
)

var inspections atomic.Uint32

// inspect asks WskInspectEvent about a connection, before any layer sees it, if
// the socket accepts conditionally. It waits for InspectComplete if the client
// pends, and reports whether the connection may go on.
//
// The system has completed the handshake already, so a rejected peer sees its
// connection reset and not refused.
func (l *listener) inspect(conn *transport.Conn) (InspectID, bool) {
	l.s.mu.Lock()
	d, on := l.s.listenDispatch(), l.s.opts.conditional
	l.s.mu.Unlock()
	if !on || d == nil || d.InspectEvent == nil {
		return InspectID{}, true
	}
	id := InspectID{Key: l.s.ale.EndpointID(), SerialNumber: inspections.Add(1)}
	verdict := make(chan InspectAction, 1)
	l.mu.Lock()
	l.pended[id] = verdict
	l.mu.Unlock()
	action := InspectReject
	l.s.event(eventInspect, func() {
		action = d.InspectEvent(l.s.context, l.s.inFamily(conn.Local()), l.s.inFamily(conn.Remote()), id)
	})
	if action == InspectPend {
		action = l.awaitVerdict(conn, id, verdict)
	}
	l.mu.Lock()
	delete(l.pended, id)
	l.mu.Unlock()
	return id, action == InspectAccept
}

// awaitVerdict waits for InspectComplete. If the peer goes first, WskAbortEvent
// is told.
func (l *listener) awaitVerdict(conn *transport.Conn, id InspectID, verdict <-chan InspectAction) InspectAction {
	gone := make(chan bool, 1)
	go func() { gone <- transport.AwaitPeerGone(conn) }()
	defer func() {
		conn.SetReadDeadline(past)
		if gone != nil {
			<-gone
		}
		conn.SetReadDeadline(noLimit)
	}()
	for {
		select {
		case a := <-verdict:
			return a
		case <-l.s.ctx.Done():
			return InspectReject
		case left := <-gone:
			gone = nil
			if !left || !l.forget(id) { // It sent something, or the verdict is there.
				continue
			}
			l.s.event(eventInspect, func() {
				if d := l.s.listenDispatch(); d.AbortEvent != nil {
					d.AbortEvent(l.s.context, id)
				}
			})
			return InspectReject
		}
	}
}

// forget takes back an inspection that has no verdict yet.
func (l *listener) forget(id InspectID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.pended[id]
	delete(l.pended, id)
	return ok
}

// InspectComplete is WskInspectComplete: the verdict on a connection that
// WskInspectEvent pended. One that is gone is STATUS_NOT_FOUND.
func (s *Socket) InspectComplete(id InspectID, action InspectAction, irp *IRP) (st ntstatus.Status) {
	if t := s.client.tracer.Load(); t != nil {
		defer t.called(s, irp, &st, "WskInspectComplete", "%d, action %d", id.SerialNumber, action)
	}
	c, st := s.enter(opInspectComplete, irp)
	if st != ntstatus.Success {
		return st
	}
	s.mu.Lock()
	l := s.listener
	s.mu.Unlock()
	switch {
	case action != InspectAccept && action != InspectReject:
		return c.done(ntstatus.InvalidParameter, 0)
	case l == nil:
		return c.done(ntstatus.InvalidDeviceState, 0)
	}
	l.mu.Lock()
	verdict, ok := l.pended[id]
	delete(l.pended, id)
	l.mu.Unlock()
	if !ok {
		return c.done(ntstatus.NotFound, 0)
	}
	verdict <- action
	return c.done(ntstatus.Success, 0)
}

// queryInspectID answers SIO_WSK_QUERY_INSPECT_ID.
func (s *Socket) queryInspectID(_ uint32, _, out []byte) (ntstatus.Status, int) {
	if s.inspectID == (InspectID{}) {
		return ntstatus.InvalidDeviceRequest, 0
	}
	if len(out) < 16 {
		return ntstatus.BufferTooSmall, 16
	}
	s.inspectID.Append(out[:0])
	return ntstatus.Success, 16
}
