package policytest

import (
	"context"
	"net/netip"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
)

// ephemeral is the port that the system would choose.
const ephemeral = 60001

// Connect takes a described connection, or the first datagram of a flow, through
// the layers. Both results are the caller's to close; the flow is nil with an error.
func Connect(ctx context.Context, e *ale.Enforcer, in fwps.Incoming) (*ale.Socket, *ale.Flow, error) {
	if !in.Local.IsValid() { // A socket has a family before it has an address.
		in.Local = netip.AddrPortFrom(unspecified(in.Remote.Addr()), 0)
	}
	s := e.NewSocket(in)
	if in.Protocol != fwps.ProtocolTCP {
		s.OnImplicitBind(assignPort)
		_, f, _, err := s.SendTo(ctx, in.Remote)
		return s, f, err
	}
	s.OnImplicitBind(assignRedirected)
	f, err := s.Connect(ctx, in.Remote, func(_ context.Context, to ale.Target) (netip.AddrPort, error) {
		return sourceFor(s.LocalAddr(), to.Remote), nil
	})
	return s, f, err
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func assignPort(_ context.Context, want netip.AddrPort) (netip.AddrPort, error) {
	if want.Port() != 0 {
		return want, nil
	}
	return netip.AddrPortFrom(want.Addr(), ephemeral), nil
}

// assignRedirected binds what a callout gave an address; the rest gets one when
// it connects.
func assignRedirected(ctx context.Context, want netip.AddrPort) (netip.AddrPort, error) {
	if want.Addr().IsUnspecified() {
		return want, nil
	}
	return assignPort(ctx, want)
}

// sourceFor is the local address that a system could choose for a connection.
func sourceFor(local, to netip.AddrPort) netip.AddrPort {
	if local.IsValid() && local.Port() != 0 && !to.Addr().IsLoopback() {
		return local
	}
	a := netip.MustParseAddr("127.0.0.1")
	if !to.Addr().Unmap().Is4() {
		a = netip.IPv6Loopback()
	}
	return netip.AddrPortFrom(a, ephemeral)
}

// listen binds a described socket and lets it listen.
func listen(ctx context.Context, e *ale.Enforcer, in fwps.Incoming) (*ale.Socket, error) {
	local := in.Local
	in.Local = netip.AddrPortFrom(local.Addr(), 0)
	s := e.NewSocket(in)
	if _, err := s.Bind(ctx, local, assignPort); err != nil {
		return s, err
	}
	return s, s.Listen(ctx, func() error { return nil })
}

// Arrive is the other end of a connection that f made: what the program that
// listens there accepts, with its records.
func Arrive(ctx context.Context, e *ale.Enforcer, f *ale.Flow, by fwps.Incoming) (*ale.Flow, error) {
	from := f.Local
	if from.Addr().IsUnspecified() {
		from = netip.AddrPortFrom(f.Remote.Addr(), from.Port())
	}
	by.Local, by.Remote = f.Remote, from
	return e.Accept(ctx, by)
}

// Carry gives records the way that a proxy carries them, from the connection that it
// accepted to the socket that it connects: sealed, and with references of their own,
// which the socket gives back.
func Carry(e *ale.Enforcer, rs redirect.Records) (redirect.Records, error) {
	sealed, err := e.Seal(rs)
	if err != nil {
		return nil, err
	}
	return e.Open(sealed)
}
