package ale

import (
	"context"
	"net/netip"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// Bind runs BIND_REDIRECT and RESOURCE_ASSIGNMENT and lets the socket bind. A
// port of zero is chosen before RESOURCE_ASSIGNMENT is asked, which sees the
// chosen one (ALE-LAY-06): when that blocks, the caller has bound a socket that
// it must not use.
func (s *Socket) Bind(ctx context.Context, want netip.AddrPort, bind BindFunc) (local netip.AddrPort, err error) {
	op, err := s.begin(ctx)
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer s.end(op, &err)
	in := s.incoming()
	in.Local = want
	return s.bind(op.ctx, in, bind)
}

func (s *Socket) bind(ctx context.Context, in fwps.Incoming, bind BindFunc) (netip.AddrPort, error) {
	to, err := s.e.bindRedirect(ctx, in, true)
	if err != nil {
		return netip.AddrPort{}, err
	}
	var g *grant
	if to.Port() != 0 {
		if g, err = s.e.assign(ctx, in, to); err != nil {
			return netip.AddrPort{}, err
		}
	}
	local, err := bind(ctx, to)
	if err != nil {
		if to.Port() != 0 {
			s.e.release(in, to)
		}
		return netip.AddrPort{}, err
	}
	if to.Port() == 0 {
		if g, err = s.e.assign(ctx, in, local); err != nil {
			return local, err
		}
	}
	s.granted(g)
	s.mu.Lock()
	s.bound, s.assigned, s.in.Local = true, true, local
	s.mu.Unlock()
	return local, nil
}

// bindRedirect asks BIND_REDIRECT where the socket may bind (BR-01). Elsewhere than
// it wants is refused if it cannot be bound here.
func (e *Enforcer) bindRedirect(ctx context.Context, in fwps.Incoming, here bool) (netip.AddrPort, error) {
	in.Layer = layer(fwpm.LayerALEBindRedirectV4, in.Local)
	s := e.classify(ctx, &in)
	defer e.done(s)
	if s.d.Action == fwp.ActionBlock && (s.d.Faulted || e.opts.BlockAtRedirect) {
		return in.Local, blocked(&in, &s.d)
	}
	if err := context.Cause(ctx); err != nil {
		return in.Local, err
	}
	r := s.d.Bind
	if r == nil || r.Previous == nil || r.Local == in.Local {
		return in.Local, nil
	}
	ev := RedirectEvent{Layer: in.Layer, Original: in.Local, Target: r.Local, Filter: r.ModifierFilterID, Callout: r.ModifierCallout,
		ProcessID: in.ProcessID, AppID: in.AppID}
	if !r.Local.IsValid() || !sameFamily(r.Local.Addr(), in.Local.Addr()) {
		ev.Rule, ev.Why = "CR-07", otherFamily(r.Local.Addr(), in.Local.Addr())
		e.tell(ev)
		return in.Local, nil
	}
	if !here {
		ev.Rule, ev.Why = "BR-01", "the system alone binds this socket, and chooses where"
		e.tell(ev)
		return in.Local, refusedTo(&in, &ev, nameOf(&s.d, ev.Filter), ev.Rule, ev.Why)
	}
	ev.Applied = true
	e.tell(ev)
	return r.Local, nil
}

// assign asks RESOURCE_ASSIGNMENT. What it blocks is released at once, what it
// permits when the socket closes (ALE-LAY-07).
func (e *Enforcer) assign(ctx context.Context, in fwps.Incoming, local netip.AddrPort) (*grant, error) {
	in.Local = local
	in.Layer = layer(fwpm.LayerALEResourceAssignmentV4, in.Local)
	if local.Addr().IsUnspecified() {
		in.Flags |= fwp.FlagIsWildcardBind
	}
	g, err := e.grant(ctx, &in)
	if err != nil {
		e.release(in, local)
	}
	return g, err
}

// release tells RESOURCE_RELEASE of the end of an assignment.
func (e *Enforcer) release(in fwps.Incoming, local netip.AddrPort) {
	in.Local, in.Remote = local, netip.AddrPort{}
	in.Layer = layer(fwpm.LayerALEResourceReleaseV4, in.Local)
	e.notify(&in)
}

// ensureBound is the implicit bind of a socket that is used unbound (ALE-LAY-06).
// The system chooses the address later, unless there is a function to bind with.
func (s *Socket) ensureBound(ctx context.Context, remote netip.AddrPort) error {
	bind, bound, err := s.beginBinding(ctx)
	if bound || err != nil {
		return err
	}
	defer s.endBinding()
	in := s.incoming()
	in.Flags |= fwp.FlagIsImplicitBind
	if !in.Local.IsValid() {
		in.Local = netip.AddrPortFrom(unspecified(remote.Addr()), 0)
	}
	if bind == nil {
		to, err := s.e.bindRedirect(ctx, in, false)
		if err != nil {
			return err
		}
		g, err := s.e.assign(ctx, in, to)
		if err != nil {
			return err
		}
		s.granted(g)
		s.mu.Lock()
		s.assigned = true
		s.mu.Unlock()
		return nil
	}
	_, err = s.bind(ctx, in, bind)
	return err
}

// beginBinding makes the caller the one who binds the socket, if it is not bound; who
// comes meanwhile waits. endBinding must follow.
func (s *Socket) beginBinding(ctx context.Context) (bind BindFunc, bound bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.binding {
		if s.settled == nil {
			s.settled = make(chan struct{})
		}
		settled := s.settled
		s.mu.Unlock()
		select {
		case <-settled:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if s.mu.Lock(); err != nil {
			return nil, false, err
		}
	}
	bound = s.bound || s.assigned
	s.binding = !bound
	return s.implicit, bound, nil
}

func (s *Socket) endBinding() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.binding = false; s.settled != nil {
		close(s.settled)
		s.settled = nil
	}
}
