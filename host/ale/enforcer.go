// Package ale runs a socket operation through the layers WFP runs it through
// and carries out what they decide. It is the only package that both decides
// and acts.
package ale

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
)

// Options configure an Enforcer.
type Options struct {
	Classifier fwps.Classifier // Required.
	Store      redirect.Store  // Required.
	// OnRedirect hears of every redirect that was applied or refused (AMB-45).
	// Optional; called on the connecting goroutine.
	OnRedirect func(RedirectEvent)
	// IsLocal tells what counts as this host (AMB-41). Optional: loopback and
	// the unspecified address.
	IsLocal func(netip.Addr) bool
	// BlockAtRedirect makes a block at CONNECT_REDIRECT fail the connect. The
	// default is what Windows was observed to do: it goes on to AUTH_CONNECT
	// (CH-16, AMB-23). A callout that failed always blocks.
	BlockAtRedirect bool
}

// A RedirectEvent tells of one redirect.
type RedirectEvent struct {
	Applied  bool
	Rule     string // for a refusal, the rule that refused
	Why      string
	Original netip.AddrPort
	Target   netip.AddrPort
	Filter   fwpm.FilterID
	Callout  fwpm.CalloutID
}

// An Enforcer joins a classifier, a record store and a seal. It is safe for
// concurrent use.
type Enforcer struct {
	opts    Options
	sealer  *redirect.Sealer
	meet    *rendezvous
	serial  atomic.Uint64
	scratch sync.Pool
}

type scratch struct {
	in fwps.Incoming
	d  fwps.Decision
}

// New returns an Enforcer. It panics when a required option is missing.
func New(opts Options) *Enforcer {
	if opts.Classifier == nil || opts.Store == nil {
		panic("ale: Options.Classifier and Options.Store are required")
	}
	if opts.IsLocal == nil {
		opts.IsLocal = func(a netip.Addr) bool { return a.IsLoopback() || a.IsUnspecified() }
	}
	e := &Enforcer{opts: opts, sealer: redirect.NewSealer(), meet: newRendezvous(opts.Store)}
	e.scratch.New = func() any { return new(scratch) }
	return e
}

// Seal returns the opaque form of rs that a client may carry.
func (e *Enforcer) Seal(rs redirect.Records) ([]byte, error) { return e.sealer.Seal(rs) }

// Open undoes Seal. The caller owes a Release.
func (e *Enforcer) Open(sealed []byte) (redirect.Records, error) {
	return e.sealer.Open(sealed, e.opts.Store)
}

// Release gives the references of rs back.
func (e *Enforcer) Release(rs redirect.Records) { redirect.Release(e.opts.Store, rs) }

// A Flow is a connection that was let go.
type Flow struct {
	Records                 redirect.Records // accepted side: of this connection; connecting side: that were set on it
	Redirected              bool
	Original, Remote, Local netip.AddrPort

	e     *Enforcer
	in    fwps.Incoming
	owned redirect.Records
	once  sync.Once
}

// Detach says that nobody will see the connection close.
func (f *Flow) Detach() { f.once.Do(func() {}) }

// Close runs ENDPOINT_CLOSURE once and gives the flow's references back. Later
// calls do nothing.
func (f *Flow) Close() {
	f.once.Do(func() {
		in := f.in
		in.Layer = layer(fwpm.LayerALEEndpointClosureV4, in.Remote)
		f.e.notify(&in)
		f.e.Release(f.owned)
	})
}

// classify asks one layer. The caller gives the scratch back.
func (e *Enforcer) classify(ctx context.Context, in *fwps.Incoming) *scratch {
	s := e.scratch.Get().(*scratch)
	s.in = *in
	e.opts.Classifier.Classify(ctx, &s.in, &s.d)
	return s
}

// notify asks a layer whose answer changes nothing (ALE-LAY-10).
func (e *Enforcer) notify(in *fwps.Incoming) {
	e.scratch.Put(e.classify(context.Background(), in))
}

func layer(v4 fwpm.LayerID, a netip.AddrPort) fwpm.LayerID { return v4.ForFamily(!a.Addr().Is4()) }

// Connect runs connect() through CONNECT_REDIRECT, AUTH_CONNECT and
// FLOW_ESTABLISHED (spec 8.1) and lets it go. A block is a *BlockedError; what
// the endpoint answered comes back wrapped, with a Flow if it wraps ErrInProgress.
//
// The record is kept before the connection is let go: a proxy that accepts it
// at once must find it.
func (e *Enforcer) Connect(ctx context.Context, ep Endpoint) (*Flow, error) {
	in := ep.Incoming()
	if len(in.Records) > 0 {
		in.Flags |= fwp.FlagIsProxyConnection // ALE-FLD-06
		in.OriginalAppID = in.Records[0].AppID
	}
	if in.OriginalAppID == "" {
		in.OriginalAppID = in.AppID
	}
	plan, err := e.redirectLayer(ctx, in)
	if err != nil {
		return nil, err
	}
	if err := e.authConnect(ctx, in, &plan); err != nil {
		return nil, err
	}
	return e.letGo(ctx, ep, in, &plan)
}

// A plan is where a connection goes after CONNECT_REDIRECT.
type plan struct {
	remote     netip.AddrPort
	redirected bool
	targetPID  uint32
	hop        *redirect.Hop // nil unless a local redirect was recorded
}

func (e *Enforcer) redirectLayer(ctx context.Context, in fwps.Incoming) (plan, error) {
	in.Layer = layer(fwpm.LayerALEConnectRedirectV4, in.Remote) // v4-mapped stays V6 (ALE-LAY-16)
	if e.opts.IsLocal(in.Remote.Addr().Unmap()) {
		in.Flags |= fwp.FlagIsLoopback
	}
	s := e.classify(ctx, &in)
	defer e.scratch.Put(s)
	if s.d.Action == fwp.ActionBlock && (s.d.Faulted || e.opts.BlockAtRedirect) {
		return plan{}, blocked(&in, &s.d)
	}
	keep := plan{remote: in.Remote}
	if !s.d.Redirected() || s.d.Connect.Remote == in.Remote { // AMB-32
		return keep, nil
	}
	r := s.d.Connect
	ev := RedirectEvent{Original: in.Remote, Target: r.Remote, Filter: r.ModifierFilterID, Callout: r.ModifierCallout}
	local := e.opts.IsLocal(r.Remote.Addr().Unmap())
	if ev.Rule, ev.Why = invalid(&in, r, local); ev.Why != "" {
		e.tell(ev)
		return keep, nil // SC-61, SC-63, SC-85: the change is dropped.
	}
	p := plan{remote: r.Remote, redirected: true, targetPID: r.LocalRedirectTargetPID}
	if local { // CR-14: only local redirects make records.
		if len(in.Records) >= redirect.MaxHops {
			return plan{}, refused(&in, "AMB-16", "the connection was redirected 16 times already: a proxy loop")
		}
		p.hop = &redirect.Hop{Serial: e.serial.Add(1), Handle: r.LocalRedirectHandle, FilterID: uint64(r.ModifierFilterID),
			Callout: string(r.ModifierCallout), Original: in.Remote, Target: r.Remote, TargetPID: r.LocalRedirectTargetPID,
			ProcessID: in.ProcessID, AppID: in.OriginalAppID, Record: bytes.Clone(r.Record), Context: bytes.Clone(r.LocalRedirectContext)}
	}
	ev.Applied = true
	e.tell(ev)
	return p, nil
}

// invalid names the rule that a redirect breaks.
func invalid(in *fwps.Incoming, r *fwps.ConnectRequest, local bool) (rule, why string) {
	switch {
	case !r.Remote.IsValid() || r.Remote.Port() == 0:
		return "CR-10", "the new destination has no address or no port"
	case r.Remote.Addr().Is4() != in.Remote.Addr().Is4(), r.Remote.Addr().Is4In6() != in.Remote.Addr().Is4In6():
		return "CR-07", "the address family may not change"
	case local && r.LocalRedirectTargetPID == 0:
		return "CR-01", "a redirect to this host needs localRedirectTargetPID"
	case local && r.LocalRedirectHandle == 0:
		return "CR-03", "a redirect to this host needs localRedirectHandle"
	}
	return "", ""
}

func (e *Enforcer) tell(ev RedirectEvent) {
	if e.opts.OnRedirect != nil {
		e.opts.OnRedirect(ev)
	}
}

// authConnect asks AUTH_CONNECT: twice for a TCP connection that goes to
// another host than it was meant for, and both must permit (ALE-LAY-14).
func (e *Enforcer) authConnect(ctx context.Context, in fwps.Incoming, p *plan) error {
	if p.redirected && in.Protocol == fwps.ProtocolTCP && !e.opts.IsLocal(p.remote.Addr().Unmap()) {
		first := in
		first.Flags |= fwp.FlagIsHonoringPolicyAuthorize // ALE-LAY-15
		if err := e.authorize(ctx, first, p, in.Remote); err != nil {
			return err
		}
	}
	return e.authorize(ctx, in, p, p.remote)
}

func (e *Enforcer) authorize(ctx context.Context, in fwps.Incoming, p *plan, remote netip.AddrPort) error {
	if p.redirected {
		in.Flags |= fwp.FlagIsConnectionRedirected
		in.OriginalDestination, in.LocalRedirectTargetPID = in.Remote, p.targetPID // ALE-META-03
	}
	in.Remote = plain(remote) // A v4-mapped destination is asked at V4 (ALE-LAY-16).
	in.Local = family(in.Local, in.Remote)
	in.Layer = layer(fwpm.LayerALEAuthConnectV4, in.Remote)
	if e.opts.IsLocal(in.Remote.Addr()) {
		in.Flags |= fwp.FlagIsLoopback
	}
	s := e.classify(ctx, &in)
	defer e.scratch.Put(s)
	if s.d.Action != fwp.ActionPermit {
		return blocked(&in, &s.d)
	}
	return nil
}

// family returns local as the same family as remote; an unspecified one becomes
// the unspecified address of that family.
func family(local, remote netip.AddrPort) netip.AddrPort {
	l := plain(local)
	if l.Addr().Is4() == remote.Addr().Is4() {
		return l
	}
	if remote.Addr().Is4() {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), l.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Unspecified(), l.Port())
}

func (e *Enforcer) letGo(ctx context.Context, ep Endpoint, in fwps.Incoming, p *plan) (*Flow, error) {
	var records redirect.Records
	if p.hop != nil {
		if err := e.opts.Store.Put(p.hop); err != nil {
			return nil, refused(&in, "RED-SIO-03", fmt.Sprintf("the redirect record was not kept: %v", err))
		}
		redirect.Acquire(e.opts.Store, in.Records)
		records = in.Records.With(p.hop)
		e.meet.begin(p.remote)
	}
	local, err := ep.Connect(ctx, p.remote)
	going := err == nil || errors.Is(err, ErrInProgress)
	if p.hop != nil {
		if going {
			e.meet.finish(local, p.remote, records, time.Now())
		} else {
			e.meet.abandon(p.remote)
			e.Release(records)
		}
	}
	if !going {
		return nil, fmt.Errorf("connect to %s: %w", p.remote, err)
	}
	in.Local, in.Remote = plain(local), plain(p.remote)
	f := &Flow{Records: in.Records, Redirected: p.redirected, Original: ep.Incoming().Remote, Remote: p.remote, Local: local, e: e, in: in}
	if err == nil {
		in.Layer = layer(fwpm.LayerALEFlowEstablishedV4, in.Remote)
		e.notify(&in)
	}
	return f, err
}

// Accept runs an accepted connection through AUTH_RECV_ACCEPT and
// FLOW_ESTABLISHED. The Flow has the connection's redirect records and holds
// them until it is closed.
func (e *Enforcer) Accept(ctx context.Context, in fwps.Incoming) (*Flow, error) {
	rs := e.meet.take(in.Remote, in.Local, ctx.Done())
	in.Local, in.Remote, in.Inbound = plain(in.Local), plain(in.Remote), true
	if e.opts.IsLocal(in.Remote.Addr()) {
		in.Flags |= fwp.FlagIsLoopback
	}
	in.Layer = layer(fwpm.LayerALEAuthRecvAcceptV4, in.Remote)
	s := e.classify(ctx, &in)
	defer e.scratch.Put(s)
	if s.d.Action != fwp.ActionPermit {
		e.Release(rs)
		return nil, blocked(&in, &s.d)
	}
	in.Layer = layer(fwpm.LayerALEFlowEstablishedV4, in.Remote)
	e.notify(&in)
	f := &Flow{Records: rs, Redirected: len(rs) > 0, Remote: in.Remote, Local: in.Local, e: e, in: in, owned: rs}
	if h := rs.Last(); h != nil {
		f.Original = h.Original
	}
	return f, nil
}
