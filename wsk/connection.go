package wsk

import (
	"context"
	"net/netip"
	"time"

	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/transport"
)

// Flags of Send, Receive and Disconnect.
const (
	FlagNoDelay  uint32 = 0x2 // WSK_FLAG_NODELAY, for Send
	FlagWaitAll  uint32 = 0x2 // WSK_FLAG_WAITALL, for Receive
	FlagDrain    uint32 = 0x4 // WSK_FLAG_DRAIN, for Receive
	FlagAbortive uint32 = 0x1 // WSK_FLAG_ABORTIVE, for Disconnect
)

// Connect is WskConnect, through the ALE layers: the connection may end up
// elsewhere, or be blocked with STATUS_ACCESS_DENIED. The socket must be bound
// (WSK-CONN-01). flags must be zero.
func (s *Socket) Connect(remote netip.AddrPort, flags uint32, irp *IRP) (st ntstatus.Status) {
	if t := s.client.tracer.Load(); t != nil {
		defer t.called(s, irp, &st, "WskConnect", "%v, flags %#x", remote, flags)
	}
	c, st := s.enter(opConnect, irp)
	if st != ntstatus.Success {
		return st
	}
	if flags != 0 || !s.speaks(remote.Addr()) {
		return c.done(ntstatus.InvalidParameter, 0)
	}
	if !s.move(bound, connecting) {
		return c.done(ntstatus.InvalidDeviceState, 0)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	return c.pend(cancel, func() (ntstatus.Status, int) {
		defer cancel()
		return s.establish(ctx, remote), 0
	})
}

// establish connects and makes the socket connected, or bound again.
func (s *Socket) establish(ctx context.Context, remote netip.AddrPort) ntstatus.Status {
	conn, flow, err := s.reach(ctx, remote)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.state = bound
		return s.ended(ctx, err)
	}
	s.conn = conn
	if err := s.applyOptions(); err != nil {
		s.conn, s.state = nil, bound
		conn.Close()
		flow.Close()
		return status(err)
	}
	s.flow, s.state = flow, connected
	if s.aborted { // By a callout, before there was something to reset.
		conn.SetLinger(0)
		conn.Close()
		return ntstatus.ConnectionAborted
	}
	if s.events.enabled != 0 {
		go s.kick()
	}
	if s.category == StreamSocket {
		s.role = ConnectionSocket
	}
	return ntstatus.Success
}

// transferable is the connection if the socket is connected.
func (s *Socket) transferable(sends bool) (*transport.Conn, ntstatus.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.usable(sends)
}

func (s *Socket) usable(sends bool) (*transport.Conn, ntstatus.Status) {
	if s.state != connected || sends && s.finAsked {
		return nil, ntstatus.InvalidDeviceState
	}
	return s.conn, ntstatus.Success
}

// ending is transferable for the last of what is sent: nothing may follow it.
func (s *Socket) ending() (*transport.Conn, ntstatus.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	conn, st := s.usable(true)
	s.finAsked = s.finAsked || st == ntstatus.Success
	return conn, st
}

// goesOn is for a disconnect that was cancelled before the peer could hear of it.
func (s *Socket) goesOn() { s.mu.Lock(); defer s.mu.Unlock(); s.finAsked = false }

var (
	past    = time.Unix(1, 0) // a deadline that interrupts
	noLimit time.Time
)

// Send is WskSend. It completes when the transport has taken all of data; its
// Information is the length. A send that is cancelled after a part of it went
// out resets the connection, since the stream would have a hole. FlagNoDelay is
// the only flag, and what every socket does.
func (s *Socket) Send(data []byte, flags uint32, irp *IRP) (st ntstatus.Status) {
	if t := s.client.tracer.Load(); t != nil {
		defer t.called(s, irp, &st, "WskSend", "%d bytes, flags %#x", len(data), flags)
	}
	c, st := s.enter(opSend, irp)
	if st != ntstatus.Success {
		return st
	}
	return s.sendData(c, data, flags)
}

func (s *Socket) sendData(c call, data []byte, flags uint32) ntstatus.Status {
	conn, st := s.transferable(true)
	if st == ntstatus.Success && flags&^FlagNoDelay != 0 {
		st = ntstatus.NotSupported // WSK-SEND-01
	}
	if st != ntstatus.Success {
		return c.done(st, 0)
	}
	c.lend(data, false)
	r := writeRequest(conn, func() (ntstatus.Status, int) { return s.write(conn, data) })
	r.c = c
	return s.send.push(r)
}

func writeRequest(conn *transport.Conn, run func() (ntstatus.Status, int)) *request {
	return &request{run: run, interrupt: func() { conn.SetWriteDeadline(past) }, resume: func() { conn.SetWriteDeadline(noLimit) }}
}

func (s *Socket) write(conn *transport.Conn, data []byte) (ntstatus.Status, int) {
	if st := s.authorized(s.ctx); st != ntstatus.Success {
		return st, 0
	}
	n, err := conn.Write(data)
	if err == nil {
		s.tellBacklog(conn)
		return ntstatus.Success, n
	}
	if n > 0 {
		s.abort()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken(err), 0
}

// Disconnect is WskDisconnect. A graceful one (flags zero) follows what was
// sent, after data if there is any, and may pend for ever; receiving goes on. An
// abortive one takes no data, cancels the sends and resets the connection: of
// the socket only CloseSocket is left. A graceful one that is cancelled before
// anything of it went out has not been.
func (s *Socket) Disconnect(data []byte, flags uint32, irp *IRP) (st ntstatus.Status) {
	if t := s.client.tracer.Load(); t != nil {
		defer t.called(s, irp, &st, "WskDisconnect", "%d bytes, flags %#x", len(data), flags)
	}
	c, st := s.enter(opDisconnect, irp)
	if st != ntstatus.Success {
		return st
	}
	if flags&^FlagAbortive != 0 || flags == FlagAbortive && data != nil {
		return c.done(ntstatus.InvalidParameter, 0)
	}
	if flags == FlagAbortive {
		if _, st := s.transferable(false); st != ntstatus.Success {
			return c.done(st, 0)
		}
		s.send.stop() // First: these are cancelled and not aborted.
		s.abort()
		return c.done(ntstatus.Success, 0)
	}
	conn, st := s.ending()
	if st != ntstatus.Success {
		return c.done(st, 0)
	}
	c.lend(data, false)
	r := writeRequest(conn, func() (ntstatus.Status, int) {
		st, n := ntstatus.Success, 0
		if len(data) > 0 {
			st, n = s.write(conn, data)
		}
		if st != ntstatus.Success {
			s.goesOn()
			return st, n
		}
		return s.fin(conn), n
	})
	r.c, r.unused = c, s.goesOn
	return s.send.push(r)
}

func (s *Socket) fin(conn *transport.Conn) ntstatus.Status {
	err := conn.CloseWrite()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		return s.broken(err)
	}
	s.finSent = true
	return ntstatus.Success
}

// abort resets the connection; one that is being made is reset by who makes it.
func (s *Socket) abort() {
	s.mu.Lock()
	s.aborted = true
	conn := s.conn
	s.mu.Unlock()
	if conn == nil {
		return
	}
	conn.SetLinger(0)
	conn.Close()
}
