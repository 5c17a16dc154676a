package ale

import (
	"context"
	"net/netip"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
)

// Accept runs an accepted connection through AUTH_RECV_ACCEPT and
// FLOW_ESTABLISHED. The Flow has the connection's redirect records and holds
// them until it is closed.
func (s *Socket) Accept(ctx context.Context, local, remote netip.AddrPort) (f *Flow, err error) {
	op, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer s.end(op, &err)
	in := s.incoming()
	in.Local, in.Remote, in.Records = local, remote, nil
	in.ParentEndpointID, in.EndpointID = in.EndpointID, s.e.ids.Add(1)
	return s.e.Accept(op.ctx, in)
}

// Accept is Socket.Accept for a connection whose listening socket lives elsewhere.
func (e *Enforcer) Accept(ctx context.Context, in fwps.Incoming) (*Flow, error) {
	rs := e.meet.take(key{in.Protocol, in.Remote, in.Local}, ctx.Done())
	return e.inbound(ctx, in, rs)
}

// inbound authorizes a flow that came in. It owns rs.
func (e *Enforcer) inbound(ctx context.Context, in fwps.Incoming, rs redirect.Records) (*Flow, error) {
	err := e.open() // Whose records are gone is not taken for one that was not redirected.
	if err == nil && !in.Remote.IsValid() {
		err = ErrNoSource
	}
	if err != nil {
		e.Release(rs)
		return nil, err
	}
	in.Local, in.Remote, in.Inbound = plain(in.Local), numbered(plain(in.Remote)), true
	onLink(&in, netip.AddrPort{})
	in.Local = family(in.Local, in.Remote)
	if e.local(in.Remote) {
		in.Flags |= fwp.FlagIsLoopback
	}
	in.Layer = layer(fwpm.LayerALEAuthRecvAcceptV4, in.Remote)
	f := &Flow{Records: rs, Redirected: len(rs) > 0, Remote: in.Remote, Local: in.Local, e: e, in: in, owned: rs,
		datagram: in.Protocol != fwps.ProtocolTCP}
	f.fwps.ID = e.ids.Add(1)
	if h := rs.Last(); h != nil {
		f.Original = h.Original
	}
	if err := f.ask(ctx); err != nil {
		f.Close()
		return nil, err
	}
	f.Established()
	return f, nil
}
