package wsk

import (
	"context"
	"net/netip"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// maxConnectData is the most that WskConnectEx takes along, in bytes.
const maxConnectData = 65535

// SocketConnect is WskSocketConnect: a connection socket that is made, bound and
// connected. The IRP's Socket is the new one. There is no moment at which redirect
// records could be set on it (WSK-SOCKCONN-01). flags must be zero.
func (c *Client) SocketConnect(typ SocketType, protocol Protocol, local, remote netip.AddrPort, flags uint32,
	socketContext any, dispatch *ClientConnectionDispatch, owner *Process, sd SecurityDescriptor, irp *IRP) (st ntstatus.Status) {
	if t := c.tracer.Load(); t != nil {
		defer t.call(irp, &st, "WskSocketConnect", "%v, %v, flags %#x", local, remote, flags)
	}
	k, st := c.enter(irp)
	if st != ntstatus.Success {
		return st
	}
	family := AFInet6
	if local.Addr().Is4() {
		family = AFInet
	}
	st = c.check(family, typ, protocol, ConnectionSocket, socketContext, dispatch, sd)
	if flags != 0 || !local.IsValid() || !remote.IsValid() || remote.Addr().Is4() != local.Addr().Is4() {
		st = ntstatus.InvalidParameter
	}
	if st != ntstatus.Success {
		return k.done(st, 0)
	}
	s := newSocket(c, family, ConnectionSocket, owner)
	s.opts.security = sd
	s.enlist()
	s.attach(socketContext, dispatch)
	ctx, cancel := context.WithCancel(s.ctx) // Not the socket's: who cancels too late must leave it as it is.
	return k.pend(cancel, func() (ntstatus.Status, int) {
		defer cancel()
		s.move(unbound, binding)
		st := s.bind(ctx, local)
		if st == ntstatus.Success && s.move(bound, connecting) {
			st = s.establish(ctx, remote)
		}
		if st != ntstatus.Success {
			s.discard()
			return st, 0
		}
		irp.setSocket(s)
		return st, 0
	})
}

// ConnectEx is WskConnectEx: Connect, and then data goes out with the
// connection. More than 65535 bytes are STATUS_BUFFER_OVERFLOW (WSK-CONN-02).
func (s *Socket) ConnectEx(remote netip.AddrPort, data []byte, flags uint32, irp *IRP) (st ntstatus.Status) {
	if t := s.client.tracer.Load(); t != nil {
		defer t.called(s, irp, &st, "WskConnectEx", "%v, %d bytes, flags %#x", remote, len(data), flags)
	}
	c, st := s.enter(opConnectEx, irp)
	switch {
	case st != ntstatus.Success:
		return st
	case flags != 0 || !s.speaks(remote.Addr()):
		return c.done(ntstatus.InvalidParameter, 0)
	case len(data) > maxConnectData:
		return c.done(ntstatus.BufferOverflow, 0)
	case !s.move(bound, connecting):
		return c.done(ntstatus.InvalidDeviceState, 0)
	}
	c.lend(data, false)
	ctx, cancel := context.WithCancel(s.ctx)
	// It is the first to send: another send may come as soon as there is a connection.
	return s.send.push(&request{c: c, interrupt: cancel, resume: func() {}, run: func() (ntstatus.Status, int) {
		defer cancel()
		if st := s.establish(ctx, remote); st != ntstatus.Success || len(data) == 0 {
			return st, 0
		}
		stop := context.AfterFunc(ctx, s.abort)
		st, n := s.write(s.Transport(), data)
		if !stop() {
			s.abort()                    // It is, or will be.
			return ntstatus.Cancelled, 0 // IRP-10
		}
		return st, n
	}, unused: func() {
		cancel()
		s.move(connecting, bound)
	}})
}

// SendEx is WskSendEx. A connection takes no control data with it, which is
// STATUS_NOT_SUPPORTED.
func (s *Socket) SendEx(data []byte, flags uint32, control []ControlMessage, irp *IRP) (st ntstatus.Status) {
	if t := s.client.tracer.Load(); t != nil {
		defer t.called(s, irp, &st, "WskSendEx", "%d bytes, flags %#x", len(data), flags)
	}
	c, st := s.enter(opSendEx, irp)
	if st != ntstatus.Success {
		return st
	}
	if len(control) > 0 {
		return c.done(ntstatus.NotSupported, 0)
	}
	return s.sendData(c, data, flags)
}

// ReceiveEx is WskReceiveEx. A connection has no control data: *control becomes
// empty and *controlFlags zero, if they are not nil.
func (s *Socket) ReceiveEx(buffer []byte, flags uint32, control *[]ControlMessage, controlFlags *uint32, irp *IRP) (st ntstatus.Status) {
	if t := s.client.tracer.Load(); t != nil {
		defer t.called(s, irp, &st, "WskReceiveEx", "%d bytes, flags %#x", len(buffer), flags)
	}
	c, st := s.enter(opReceiveEx, irp)
	if st != ntstatus.Success {
		return st
	}
	if control != nil {
		*control = nil
	}
	if controlFlags != nil {
		*controlFlags = 0
	}
	return s.receive(c, buffer, flags)
}
