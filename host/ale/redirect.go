package ale

import (
	"context"
	"net/netip"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
)

// A plan is where a connection goes after CONNECT_REDIRECT.
type plan struct {
	remote     netip.AddrPort
	local      netip.AddrPort // valid if a callout chose the source (CH-07)
	redirected bool
	targetPID  uint32
	hop        *redirect.Hop    // nil unless a local redirect was recorded
	alone      redirect.Records // the hop, as the records of a connection that had none
	kept       bool             // the hop is in the store already
	event      RedirectEvent    // if redirected
	filter     string           // the name of event.Filter, if there is a hop
	observer   fwps.Observer    // hears of it when the connection was let go; nil: nobody
}

// pending answers RED-SIO-01: what the records would be. The hop it promises is
// the one the redirect makes, so the bytes stay good.
type pending struct {
	e   *Enforcer
	in  *fwps.Incoming
	hop *redirect.Hop
}

// Format implements fwps.PendingRecords. The hop is kept at once: a proxy may set
// the records before the connection it waits for exists (SC-48).
func (p *pending) Format(h redirect.Handle) ([]byte, error) {
	if p.hop == nil || p.hop.Handle != h {
		p.drop()
		hop := &redirect.Hop{Serial: p.e.opts.Store.NewSerial(), Handle: h, Original: p.in.Remote, ProcessID: p.in.ProcessID, AppID: p.in.OriginalAppID, Client: p.in.Client()}
		if err := p.e.opts.Store.Put(hop); err != nil {
			return nil, err
		}
		p.hop = hop
	}
	return p.e.Seal(p.in.Records.With(p.hop))
}

func (p *pending) drop() {
	if p.hop != nil {
		p.e.Release(redirect.Records{p.hop})
		p.hop = nil
	}
}

// redirectable is ALE-LAY-09: anything else is not offered to redirect callouts.
func redirectable(in *fwps.Incoming) bool {
	raw := in.Flags&fwp.FlagIsRawEndpoint != 0
	switch in.Protocol {
	case fwps.ProtocolTCP:
		return true
	case fwps.ProtocolUDP:
		return !raw || in.Remote.Addr().Is4() && !in.HeaderInclude
	case fwps.ProtocolICMP, fwps.ProtocolICMPv6:
		return !in.HeaderInclude
	}
	return false
}

// redirectLayer asks CONNECT_REDIRECT where the connection goes.
func (e *Enforcer) redirectLayer(ctx context.Context, in fwps.Incoming) (plan, error) {
	keep := plan{remote: in.Remote}
	if !redirectable(&in) {
		return keep, nil
	}
	in.Layer = layer(fwpm.LayerALEConnectRedirectV4, in.Remote) // v4-mapped stays V6 (ALE-LAY-16)
	s := e.scratch.Get().(*scratch)
	defer e.done(s)
	s.in = in
	s.pending = pending{e: e, in: &s.in}
	s.in.Pending = &s.pending
	e.opts.Classifier.Classify(ctx, &s.in, &s.d)
	p, err := e.plan(ctx, s, keep)
	if s.pending.hop != nil && !p.kept {
		s.pending.drop()
	}
	return p, err
}

// plan validates what the callouts made of the request (spec 8.1, step 4).
func (e *Enforcer) plan(ctx context.Context, s *scratch, keep plan) (plan, error) {
	in, d := &s.in, &s.d
	if d.Action == fwp.ActionBlock && (d.Faulted || e.opts.BlockAtRedirect) {
		return plan{}, blocked(in, d)
	}
	if err := context.Cause(ctx); err != nil {
		return plan{}, err
	}
	if !d.Redirected() {
		return keep, nil
	}
	r := d.Connect
	if r.Remote != in.Remote {
		r.Remote = sameLink(numbered(arrives(r.Remote, in.Local)), in.Remote)
	}
	ev := RedirectEvent{Layer: in.Layer, Original: in.Remote, Target: r.Remote, Filter: r.ModifierFilterID, Callout: r.ModifierCallout,
		ProcessID: in.ProcessID, AppID: in.AppID}
	local := e.local(r.Remote)
	if r.Remote != in.Remote { // AMB-32
		if ev.Rule, ev.Why = invalid(in, r, local); ev.Why != "" {
			e.tell(ev)
			return keep, nil // SC-61, SC-63, SC-85: the change is dropped.
		}
	}
	p := plan{remote: r.Remote, redirected: r.Remote != in.Remote, targetPID: r.LocalRedirectTargetPID, local: e.source(in, r, ev)}
	if !p.redirected {
		return p, nil
	}
	p.observer = r.Observer
	if local { // CR-14: only local redirects make records.
		if len(in.Records) >= redirect.MaxHops {
			return plan{}, refusedTo(in, &ev, nameOf(d, ev.Filter), "AMB-16", "the connection was redirected 16 times already: a proxy loop")
		}
		p.hop, p.alone, p.kept = e.hop(s, r)
		p.filter = nameOf(d, ev.Filter)
	}
	ev.Applied = true
	e.tell(ev)
	p.event = ev
	return p, nil
}

// arrives is where a connection to an address arrives: one to the unspecified address at
// the address that it comes from, or loopback where it has none (CR-08).
func arrives(to, local netip.AddrPort) netip.AddrPort {
	a, l := to.Addr(), local.Addr()
	switch {
	case !a.Unmap().IsUnspecified():
		return to
	case l.IsValid() && !l.Unmap().IsUnspecified() && sameFamily(a, l):
		a = l
	case a.Is4():
		a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case a.Is4In6():
		a = netip.AddrFrom16([16]byte{10: 0xff, 11: 0xff, 12: 127, 15: 1})
	default:
		a = netip.IPv6Loopback()
	}
	return netip.AddrPortFrom(a, to.Port())
}

// hop is the record of a local redirect; kept says that it is stored already.
// It is two objects: itself with the records that name it, and its blobs.
func (e *Enforcer) hop(s *scratch, r *fwps.ConnectRequest) (h *redirect.Hop, alone redirect.Records, kept bool) {
	in := &s.in
	mem := new(struct {
		hop   redirect.Hop
		alone [1]*redirect.Hop
	})
	h, alone = &mem.hop, mem.alone[:1:1]
	alone[0] = h
	*h = redirect.Hop{Handle: r.LocalRedirectHandle, Provider: string(r.ModifierProvider), FilterID: uint64(r.ModifierFilterID),
		Callout: string(r.ModifierCallout), Original: in.Remote, Target: r.Remote, TargetPID: r.LocalRedirectTargetPID,
		ProcessID: in.ProcessID, AppID: in.OriginalAppID, Client: in.Client()}
	h.Record, h.Context = cloneBlobs(r.Record, r.LocalRedirectContext)
	if promised := s.pending.hop; promised != nil && promised.Handle == h.Handle {
		h.Serial = promised.Serial
		if e.opts.Store.Replace(h) == nil {
			return h, alone, true
		}
	}
	h.Serial = e.opts.Store.NewSerial()
	return h, alone, false
}

func cloneBlobs(record, context []byte) (r, c []byte) {
	both := append(append(make([]byte, 0, len(record)+len(context)), record...), context...)
	if n := len(record); n > 0 {
		r = both[:n:n]
	}
	if len(context) > 0 {
		c = both[len(record):]
	}
	return r, c
}

// source is the local address that a callout chose, for TCP and an address of
// this host only (CH-07, AMB-24).
func (e *Enforcer) source(in *fwps.Incoming, r *fwps.ConnectRequest, ev RedirectEvent) netip.AddrPort {
	if r.Local == in.Local {
		return netip.AddrPort{}
	}
	ev.Original, ev.Target, ev.Rule = in.Local, r.Local, "AMB-24"
	switch {
	case in.Protocol != fwps.ProtocolTCP:
		ev.Why = "the local address can be chosen for TCP only: ignored"
	case !r.Local.IsValid() || !sameFamily(r.Local.Addr(), in.Remote.Addr()):
		ev.Why = "the local address is of another family: ignored"
	case !e.local(r.Local):
		ev.Why = "the local address is not one of this host: ignored"
	default:
		return r.Local
	}
	e.tell(ev)
	return netip.AddrPort{}
}

// invalid names the rule that a redirect breaks.
func invalid(in *fwps.Incoming, r *fwps.ConnectRequest, local bool) (rule, why string) {
	switch {
	case !r.Remote.IsValid() || r.Remote.Port() == 0 && in.Remote.Port() != 0:
		return "CR-10", "the new destination has no address or no port"
	case !sameFamily(r.Remote.Addr(), in.Remote.Addr()):
		return "CR-07", otherFamily(r.Remote.Addr(), in.Remote.Addr())
	case local && r.LocalRedirectTargetPID == 0:
		return "CR-01", "a redirect to this host needs localRedirectTargetPID"
	case local && r.LocalRedirectHandle == 0:
		return "CR-03", "a redirect to this host needs localRedirectHandle"
	}
	return "", ""
}

// otherFamily says what is wrong with an address in the place of another.
func otherFamily(a, was netip.Addr) string {
	if a.Is4() && was.Is4In6() {
		return "the address family may not change: of this dual-stack socket an IPv4 address is written ::ffff:a.b.c.d"
	}
	return "the address family may not change"
}

// sameFamily counts v4-mapped as a family of its own (AMB-25).
func sameFamily(a, b netip.Addr) bool {
	return a.Is4() == b.Is4() && a.Is4In6() == b.Is4In6()
}
