package ale

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
)

// ErrInProgress is what a function that connects wraps when a non-blocking socket
// has begun to connect. The connection has been let go: its record must stay.
var ErrInProgress = errors.New("ale: connection in progress")

// ErrNoDestination is a connection or datagram to no address: nothing can be decided about it.
var ErrNoDestination = errors.New("ale: no address to connect or send to")

// ErrNoSource is a connection or datagram that came from no address: nothing can be decided about
// it, either.
var ErrNoSource = errors.New("ale: no address that it came from")

// A Target is where a connection is let go to.
type Target struct {
	Remote netip.AddrPort
	// Local is valid when a callout chose the source address (CH-07).
	Local netip.AddrPort
	// PeerName is what the destination is called, if that is known.
	PeerName string
	// Records are those of a connection that is redirected to this host, the
	// redirect itself last. They are valid during the call.
	Records redirect.Records
}

// A ConnectFunc lets a connection go and returns the socket's local address, also
// when the error wraps ErrInProgress.
type ConnectFunc func(ctx context.Context, to Target) (local netip.AddrPort, err error)

// An Endpoint is a socket whose owner asked to connect and which lives elsewhere:
// nobody says when it closes.
type Endpoint interface {
	// Incoming says what is known about the socket, as NewSocket takes it, and in
	// Remote where it wants to go.
	Incoming() fwps.Incoming
	// Connect lets the connection go to the given address and returns the
	// socket's local address, also when the error wraps ErrInProgress.
	Connect(ctx context.Context, to netip.AddrPort) (local netip.AddrPort, err error)
}

// Connect runs the connect() of an endpoint through the layers and lets it go.
// See Socket.Connect.
func (e *Enforcer) Connect(ctx context.Context, ep Endpoint) (*Flow, error) {
	in := ep.Incoming()
	s := e.NewSocket(in)
	return s.connect(ctx, nil, in.Remote, func(ctx context.Context, to Target) (netip.AddrPort, error) {
		return ep.Connect(ctx, to.Remote)
	})
}

// Connect runs connect() through CONNECT_REDIRECT, AUTH_CONNECT and
// FLOW_ESTABLISHED (spec 8.1) and lets it go; an unbound socket is bound first. A
// block is a *BlockedError; what connect answered comes back wrapped, with a Flow
// if it wraps ErrInProgress.
//
// The record is kept before the connection is let go: a proxy that accepts it
// at once must find it. The caller owes a Close or a Detach of the Flow, which the
// socket's Close is not: until then its record lives. What a callout aborts meanwhile
// ends the context of connect, and is ErrAborted. With a *BlockedError that is a connection
// which connect has let go, and which comes from elsewhere than OnSource's function said.
//
// A datagram socket's connect() asks CONNECT_REDIRECT only; its flow begins with
// the first SendTo, and no Flow is returned (ALE-LAY-05).
func (s *Socket) Connect(ctx context.Context, remote netip.AddrPort, connect ConnectFunc) (f *Flow, err error) {
	op, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer s.end(op, &err)
	return s.connect(op.ctx, op, remote, connect)
}

// connect is Connect of an operation, nil for a socket whose owner looks after aborts.
func (s *Socket) connect(ctx context.Context, op *operation, remote netip.AddrPort, connect ConnectFunc) (*Flow, error) {
	if !remote.IsValid() {
		return nil, ErrNoDestination
	}
	if err := s.e.open(); err != nil { // A socket that lives elsewhere did not ask.
		return nil, err
	}
	remote = s.destination(remote)
	if err := s.ensureBound(ctx, remote); err != nil {
		return nil, err
	}
	in := s.outgoing(remote)
	begun, goes := false, false
	defer s.e.releaseUnless(&begun, in.Records)
	p, err := s.e.redirectLayer(ctx, in)
	if err != nil {
		s.abandon(ctx, remote)
		return nil, err
	}
	if in.Protocol != fwps.ProtocolTCP {
		return nil, s.associate(ctx, remote, &p, connect)
	}
	f := s.flow(in, &p)
	begun = true
	defer f.closeUnless(&goes)
	if err := s.authConnect(ctx, f, in, &p); err != nil {
		s.e.drop(&p)
		return nil, err
	}
	if op != nil && f.fwps.Shown() {
		f.fwps.OnAbort(func() { op.cancel(ErrAborted) }) // Until whoever gets the flow gives another.
	}
	err = f.letGo(ctx, in, &p, connect)
	if goes = err == nil || errors.Is(err, ErrInProgress); !goes {
		return nil, err
	}
	return f, err
}

// destination is where the system sends what the socket sends to an address: what is sent
// to none arrives on this host. Whoever decides about 127.0.0.0/8 decides about it, too.
func (s *Socket) destination(to netip.AddrPort) netip.AddrPort {
	to = numbered(to)
	a := to.Addr()
	switch {
	case !a.Unmap().IsUnspecified():
		return to
	case a == netip.IPv6Unspecified(): // From whatever address the socket is bound to.
		return arrives(to, netip.AddrPort{})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return arrives(to, s.in.Local)
}

// held is what is known about the socket, with references of its own on the records,
// which a set can replace meanwhile (AMB-19). A store that panics leaves no lock behind, or
// who ends the operation waits for it for ever.
func (s *Socket) held() (in fwps.Incoming) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in = s.known()
	redirect.Acquire(s.e.opts.Store, in.Records)
	return in
}

// outgoing is what is known about a connection that the socket makes.
func (s *Socket) outgoing(remote netip.AddrPort) fwps.Incoming {
	in := s.held()
	in.Remote = remote
	onLink(&in, netip.AddrPort{})
	if in.Local.Addr().Is4() != remote.Addr().Is4() || !in.Local.IsValid() {
		in.Local = netip.AddrPortFrom(unspecified(remote.Addr()), in.Local.Port())
	}
	if len(in.Records) > 0 {
		in.Flags |= fwp.FlagIsProxyConnection // ALE-FLD-06
		in.OriginalAppID = in.Records[0].AppID
	}
	if in.OriginalAppID == "" {
		in.OriginalAppID = in.AppID
	}
	s.e.name(&in)
	return in
}

// name fills in what the peer is called, if that is known. It allocates only then.
func (e *Enforcer) name(in *fwps.Incoming) {
	if e.opts.PeerNames == nil || in.Other[fwpm.ConditionPeerName].Text != "" {
		return
	}
	if in.PeerNames = e.opts.PeerNames(in.Client(), in.Remote.Addr().Unmap()); in.PeerNames != nil && len(in.PeerNames.Names) > 0 {
		in.Other = withPeerName(in.Other, in.PeerNames.Names[0])
	}
}

// associate is connect() of a datagram socket: it sets the peer only.
func (s *Socket) associate(ctx context.Context, remote netip.AddrPort, p *plan, connect ConnectFunc) error {
	s.e.drop(p) // The flow's first datagram makes the record.
	local, err := connect(ctx, Target{Remote: p.remote})
	if err != nil {
		return fmt.Errorf("connect to %s: %w", p.remote, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connected = remote
	if local.IsValid() {
		s.bound, s.in.Local = true, local
	}
	return nil
}

// drop forgets a hop that was promised and will not be used.
func (e *Enforcer) drop(p *plan) {
	if p.kept {
		e.Release(redirect.Records{p.hop})
	}
}

// authConnect asks AUTH_CONNECT: twice for a TCP connection that goes to
// another host than it was meant for, and both must permit (ALE-LAY-14).
func (s *Socket) authConnect(ctx context.Context, f *Flow, in fwps.Incoming, p *plan) error {
	var from netip.Addr
	if p.local.IsValid() && !p.local.Addr().Unmap().IsUnspecified() {
		in.Local = p.local
	} else if a, err := s.sourceOf(ctx, &in, p.remote); err != nil {
		return err
	} else {
		from = a
	}
	if p.redirected {
		in.Flags |= fwp.FlagIsConnectionRedirected
		in.OriginalDestination, in.LocalRedirectTargetPID = in.Remote, p.targetPID // ALE-META-03
	}
	original := in.Remote
	f.in = f.e.toward(in, p.remote)
	if p.redirected && in.Protocol == fwps.ProtocolTCP && !f.e.local(p.remote) {
		first := f.e.toward(in, original)
		first.Flags |= fwp.FlagIsHonoringPolicyAuthorize // ALE-LAY-15
		if original.Addr().Is4In6() {
			first.Remote = netip.AddrPortFrom(netip.IPv4Unspecified(), original.Port()) // ALE-LAY-16
		}
		f.first = &first
	}
	if from.IsValid() {
		f.comesFrom(from)
	}
	return f.ask(ctx)
}

// toward is what AUTH_CONNECT is asked about a connection to remote. A v4-mapped
// one is asked at V4 (ALE-LAY-16).
func (e *Enforcer) toward(in fwps.Incoming, remote netip.AddrPort) fwps.Incoming {
	was := in.Remote
	in.Remote = plain(remote)
	onLink(&in, was)
	in.Local = family(in.Local, in.Remote)
	in.Layer = layer(fwpm.LayerALEAuthConnectV4, in.Remote)
	if e.local(in.Remote) {
		in.Flags |= fwp.FlagIsLoopback
	}
	return in
}

// letGo keeps the record and lets the connection go.
func (f *Flow) letGo(ctx context.Context, in fwps.Incoming, p *plan, connect ConnectFunc) error {
	records, err := f.e.keep(&in, p)
	if err != nil {
		return err
	}
	ticket := uint64(0)
	if records != nil {
		f.hold(p)
		ticket = f.e.meet.begin(p.remote)
	}
	local, err := connect(ctx, Target{Remote: p.remote, Local: p.local, PeerName: in.Other[fwpm.ConditionPeerName].Text, Records: records})
	going := err == nil || errors.Is(err, ErrInProgress)
	if records != nil {
		if going {
			f.e.meet.finish(key{in.Protocol, local, p.remote}, ticket, records)
		} else {
			f.e.meet.abandon(p.remote, ticket)
			f.e.Release(records)
		}
	}
	if !going {
		if f.Aborted() { // What connect answered is how it ended that.
			err = ErrAborted
		}
		if p.redirected {
			p.event.Err = err
			f.e.tell(p.event)
		}
		return fmt.Errorf("connect to %s: %w", p.remote, err)
	}
	decided := f.in.Local.Addr()
	f.Local, f.in.Local = local, plain(local)
	if p.observer != nil {
		p.sent(in)
	}
	if f.first != nil {
		f.first.Local = f.in.Local
	}
	if refused := f.settle(ctx, decided); refused != nil {
		return fmt.Errorf("%w: %w", ErrAborted, refused)
	}
	if err == nil {
		f.Established()
	}
	return err
}

// sent tells the callout that redirected the connection that it went there.
func (p *plan) sent(in fwps.Incoming) {
	in.Layer = p.event.Layer
	p.observer.RedirectDone(&fwps.Event{In: &in, Filter: p.event.Filter, Hop: p.hop})
}

// keep stores the hop of a plan and returns the records of the connection, with a
// reference on every hop; nil if it was not redirected to this host.
func (e *Enforcer) keep(in *fwps.Incoming, p *plan) (redirect.Records, error) {
	if p.hop == nil {
		return nil, nil
	}
	if !p.kept {
		if err := e.opts.Store.Put(p.hop); err != nil {
			return nil, refusedTo(in, &p.event, p.filter, "RED-SIO-03", fmt.Sprintf("the redirect record was not kept: %v", err))
		}
	}
	if len(in.Records) == 0 {
		return p.alone, nil
	}
	redirect.Acquire(e.opts.Store, in.Records)
	return in.Records.With(p.hop), nil
}
