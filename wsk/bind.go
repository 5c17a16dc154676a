package wsk

import (
	"context"
	"net/netip"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// Bind is WskBind. Port zero is chosen here, a wildcard address when the socket
// connects (WSK-BIND-01). A listen socket listens from then on (WSK-CAT-03).
// flags must be zero.
func (s *Socket) Bind(local netip.AddrPort, flags uint32, irp *IRP) (st ntstatus.Status) {
	if t := s.client.tracer.Load(); t != nil {
		defer t.called(s, irp, &st, "WskBind", "%v, flags %#x", local, flags)
	}
	c, st := s.enter(opBind, irp)
	if st != ntstatus.Success {
		return st
	}
	if flags != 0 || !s.speaks(local.Addr()) {
		return c.done(ntstatus.InvalidParameter, 0)
	}
	if !s.move(unbound, binding) {
		return c.done(ntstatus.InvalidDeviceState, 0)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	return c.pend(cancel, func() (ntstatus.Status, int) {
		defer cancel()
		return s.bind(ctx, local), 0
	})
}

// move changes the state if it is as expected.
func (s *Socket) move(from, to state) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != from {
		return false
	}
	s.state = to
	return true
}

func (s *Socket) bind(ctx context.Context, local netip.AddrPort) ntstatus.Status {
	_, err := s.ale.Bind(ctx, local, func(_ context.Context, want netip.AddrPort) (netip.AddrPort, error) { return s.take(want) })
	if err == nil {
		s.move(binding, bound)
		if s.category == ListenSocket {
			err = s.listen(ctx)
		}
	}
	if err == nil {
		s.kick()
		return ntstatus.Success
	}
	s.mu.Lock()
	s.letGo()
	s.state = unbound
	s.mu.Unlock()
	return s.ended(ctx, err)
}

// speaks tells whether an address is of the socket's family.
func (s *Socket) speaks(a netip.Addr) bool {
	return a.IsValid() && a.Is4() == (s.family == AFInet)
}

// GetLocalAddress is WskGetLocalAddress, of a bound socket (WSK-ADDR-01). local
// is the caller's until the IRP is completed.
func (s *Socket) GetLocalAddress(local *netip.AddrPort, irp *IRP) (st ntstatus.Status) {
	if t := s.client.tracer.Load(); t != nil {
		defer t.called(s, irp, &st, "WskGetLocalAddress", "")
	}
	return s.address(opGetLocalAddress, local, irp, func() (netip.AddrPort, bool) {
		if s.state == connected {
			return s.inFamily(s.conn.Local()), true
		}
		return s.local, s.state >= bound
	})
}

// GetRemoteAddress is WskGetRemoteAddress, of a connected socket: its real
// peer, which after a redirection is the proxy (AMB-31).
func (s *Socket) GetRemoteAddress(remote *netip.AddrPort, irp *IRP) (st ntstatus.Status) {
	if t := s.client.tracer.Load(); t != nil {
		defer t.called(s, irp, &st, "WskGetRemoteAddress", "")
	}
	return s.address(opGetRemoteAddress, remote, irp, func() (netip.AddrPort, bool) {
		if s.state != connected {
			return netip.AddrPort{}, false
		}
		return s.inFamily(s.conn.Remote()), true
	})
}

func (s *Socket) address(op operation, out *netip.AddrPort, irp *IRP, get func() (netip.AddrPort, bool)) ntstatus.Status {
	c, st := s.enter(op, irp)
	if st != ntstatus.Success {
		return st
	}
	if out == nil {
		return c.done(ntstatus.InvalidParameter, 0)
	}
	s.mu.Lock()
	a, ok := get()
	s.mu.Unlock()
	if !ok {
		return c.done(ntstatus.InvalidDeviceState, 0)
	}
	*out = a
	return c.done(ntstatus.Success, 0)
}

// inFamily is an address of the transport in the socket's family.
func (s *Socket) inFamily(ap netip.AddrPort) netip.AddrPort {
	if s.family == AFInet {
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	if ap.Addr().Is4() {
		return netip.AddrPortFrom(netip.AddrFrom16(ap.Addr().As16()), ap.Port())
	}
	return ap
}
