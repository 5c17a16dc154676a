package ale

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// A SourceFunc says from which address the system would send what the socket sends to one. What
// wraps ErrNoRoute is why it would not send it at all.
type SourceFunc func(ctx context.Context, to netip.AddrPort) (netip.Addr, error)

// ErrNoRoute is a destination to which the system has no way, or no address to send from.
var ErrNoRoute = errors.New("ale: no route")

// OnSource gives the function that says where what the socket sends comes from. AUTH_CONNECT
// has that for its local address, as in Windows, where the route is known there. It is asked
// only where a filter tests the address. Without it that is what the socket is bound to.
func (s *Socket) OnSource(f SourceFunc) { s.source = f }

// OnSource is Socket.OnSource for all connects that follow.
func (c *Carrier) OnSource(f SourceFunc) { c.source = f }

// TestsSource reports whether filters test now where something comes from that is sent to an
// address.
func (e *Enforcer) TestsSource(to netip.AddrPort) bool {
	return e.opts.Classifier.TestsLocal(layer(fwpm.LayerALEAuthConnectV4, plain(to)))
}

// sourceOf is where what is sent to an address would come from, as AUTH_CONNECT is asked about it,
// not valid where nobody has to know or can tell. A filter that tests what is not known would
// be gone around: then it is refused, with the reason. What has no route does not go on, either.
func (s *Socket) sourceOf(ctx context.Context, in *fwps.Incoming, to netip.AddrPort) (netip.Addr, error) {
	if s.source == nil || !s.e.TestsSource(to) {
		return netip.Addr{}, nil
	}
	a, err := s.source(ctx, to)
	switch {
	case err == nil:
		return a.Unmap().WithZone(""), nil
	case errors.Is(err, ErrNoRoute):
		return netip.Addr{}, fmt.Errorf("connect to %s: %w", to, err)
	}
	b := refused(in, "", fmt.Sprintf("a filter tests IP_LOCAL_ADDRESS, and where it would come from is not known: %v", err))
	b.Layer = layer(fwpm.LayerALEAuthConnectV4, plain(to))
	return netip.Addr{}, b
}

// comesFrom makes an address that the flow's connection comes from what is authorized.
func (f *Flow) comesFrom(a netip.Addr) {
	f.in.Local = netip.AddrPortFrom(a, f.in.Local.Port())
	if f.first != nil {
		f.first.Local = f.in.Local
	}
	f.sourced = true
}

// Source is the address that the flow was authorized to come from, without a link, if somebody had
// to find that out.
func (f *Flow) Source() (a netip.Addr, ok bool) { return f.in.Local.Addr(), f.sourced }

// settle asks about a connection again that does not come from where the system has said that it
// would: its routes or the socket's options changed meanwhile. A block ends it.
func (f *Flow) settle(ctx context.Context, decided netip.Addr) error {
	if now := f.in.Local.Addr().WithZone(""); !f.sourced || now == decided || now.IsUnspecified() {
		return nil // Without an address it is not connected any more.
	}
	return f.ask(ctx)
}

// stays reports whether the datagrams of a live flow still come from where it was authorized to.
// What comes from elsewhere is another flow (ALE-LAY-11).
func (s *Socket) stays(ctx context.Context, f *Flow) (bool, error) {
	if f.in.Inbound {
		return true, nil
	}
	a, err := s.sourceOf(ctx, &f.in, f.Remote)
	if err != nil || !a.IsValid() {
		return err == nil, err
	}
	return a == f.in.Local.Addr().WithZone(""), nil
}
