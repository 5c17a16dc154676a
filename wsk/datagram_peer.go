package wsk

import (
	"context"
	"net/netip"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// setSendToAddress answers SIO_WSK_SET_SENDTO_ADDRESS: where SendTo goes
// without an address.
func (s *Socket) setSendToAddress(_ uint32, in, _ []byte) (ntstatus.Status, int) {
	a, ok := ParseSockaddr(in)
	if !ok || !s.speaks(a.Addr()) {
		return ntstatus.InvalidParameter, 0
	}
	s.dgram.sendTo = a
	return ntstatus.Success, 0
}

// setRemoteAddress answers SIO_WSK_SET_REMOTE_ADDRESS: connect() of a datagram
// socket, which CONNECT_REDIRECT sees (ALE-LAY-05). Datagrams of others are
// dropped from then on.
func (s *Socket) setRemoteAddress(c call, in []byte) ntstatus.Status {
	a, ok := ParseSockaddr(in)
	s.mu.Lock()
	usable, local := s.state >= bound, s.local
	s.mu.Unlock()
	switch {
	case !ok || !s.speaks(a.Addr()):
		return c.done(ntstatus.InvalidParameter, 0)
	case !usable:
		return c.done(ntstatus.InvalidDeviceState, 0)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	return c.pend(cancel, func() (ntstatus.Status, int) {
		defer cancel()
		_, err := s.ale.Connect(ctx, a, func(context.Context, ale.Target) (netip.AddrPort, error) { return local, nil })
		if err != nil {
			return s.ended(ctx, err), 0
		}
		s.mu.Lock()
		s.dgram.peer, s.flow, s.sealed = a, s.ale.Flow(a), nil
		s.mu.Unlock()
		return ntstatus.Success, 0
	})
}
