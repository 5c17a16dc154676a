package wsk

import (
	"bytes"
	"context"
	"net/netip"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/transport"
)

// What the sockets ask of the ALE layers is in this file.

func (s *Socket) enforcer() *ale.Enforcer { return s.client.provider.opts.ALE }

// enlist makes the socket an endpoint of the layers. Basic sockets do nothing
// that a layer sees, accepted ones are seen as flows of their listener.
func (s *Socket) enlist() {
	in := fwps.Incoming{Protocol: fwps.ProtocolTCP, Local: netip.AddrPortFrom(netip.IPv4Unspecified(), 0),
		ProcessID: s.owner.ID, AppID: s.owner.AppID, UserID: s.owner.UserID, UserKnown: s.owner.UserKnown}
	if s.category == DatagramSocket {
		in.Protocol = fwps.ProtocolUDP
	}
	if s.family == AFInet6 {
		in.Local = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	}
	s.ale = s.enforcer().NewSocket(in)
}

// endpointID is what classifications of the socket show as its endpoint handle.
func (s *Socket) endpointID() uint64 {
	switch {
	case s.accepted:
		return s.flow.EndpointID()
	case s.ale != nil:
		return s.ale.EndpointID()
	}
	return 0
}

// take binds the real socket where the layers let it.
func (s *Socket) take(want netip.AddrPort) (netip.AddrPort, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.category == DatagramSocket {
		return s.takeDatagram(want)
	}
	s.letGo()
	b, err := transport.Bind(want, transport.Options{DualStack: s.opts.dualStack, Shared: s.opts.reuse, Listens: s.category != ConnectionSocket})
	if err != nil {
		return netip.AddrPort{}, err
	}
	s.bound, s.local = b, b.Local()
	return s.local, nil
}

// letGo gives the real socket up. The socket is locked.
func (s *Socket) letGo() {
	if s.bound != nil {
		s.bound.Close()
	}
	if s.packets != nil {
		s.packets.Close()
	}
	s.bound, s.packets, s.local = nil, nil, netip.AddrPort{}
}

// reach takes a connection through the layers and to where they let it go.
func (s *Socket) reach(ctx context.Context, remote netip.AddrPort) (*transport.Conn, *ale.Flow, error) {
	var conn *transport.Conn
	flow, err := s.ale.Connect(ctx, remote, func(ctx context.Context, to ale.Target) (netip.AddrPort, error) {
		if to.Local.IsValid() { // A callout chose another source (CH-07).
			if _, err := s.take(to.Local); err != nil {
				return netip.AddrPort{}, err
			}
		}
		c, err := s.bound.Connect(ctx, to.Remote)
		if err != nil {
			return netip.AddrPort{}, err
		}
		conn = c
		return s.inFamily(c.Local()), nil
	})
	if err == nil {
		flow.OnAbort(s.abort)
	}
	return conn, flow, err
}

// authorized asks the flow's layer again if the policy changed since (ALE-LAY-12).
// A flow that it no longer lets go on is reset.
func (s *Socket) authorized(ctx context.Context) ntstatus.Status {
	s.mu.Lock()
	f := s.flow
	s.mu.Unlock()
	if f == nil {
		return ntstatus.InvalidDeviceState
	}
	if err := f.Reauthorize(ctx); err != nil {
		return s.ended(ctx, err)
	}
	return ntstatus.Success
}

// hops are the redirects of the connection that this socket accepted. The
// connecting side has none, whatever was set on it (RED-Q-03, SC-17).
func (s *Socket) hops() redirect.Records {
	if s.flow == nil || !s.flow.Accepted() {
		return nil
	}
	return s.flow.Records
}

// seal is the sealed form of the socket's records, the same each time.
func (s *Socket) seal() (_ []byte, err error) {
	if s.sealed == nil {
		s.sealed, err = s.enforcer().Seal(s.hops())
	}
	return s.sealed, err
}

// setRecords makes sealed records those of the coming connect. What is not ours
// or no longer intact is refused (AMB-13).
func (s *Socket) setRecords(sealed []byte) ntstatus.Status {
	rs, err := s.enforcer().Open(sealed)
	switch {
	case err != nil:
		return ntstatus.AccessDenied
	case s.accepted || s.state >= connecting: // SC-42: success, without effect.
		s.enforcer().Release(rs)
	default:
		s.ale.SetRecords(rs) // SC-41: the last one counts.
		s.set = bytes.Clone(sealed)
	}
	return ntstatus.Success
}

// closeALE ends the socket's flow and its endpoint.
func (s *Socket) closeALE() {
	if s.ale != nil {
		defer s.ale.Close()
	}
	if s.flow != nil && s.category != DatagramSocket { // Its flows are the endpoint's.
		s.flow.Close()
	}
}
