// Package ale runs a socket operation through the layers WFP runs it through
// and carries out what they decide. It is the only package that both decides
// and acts.
package ale

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// Options configure an Enforcer.
type Options struct {
	Classifier fwps.Classifier // Required.
	Store      redirect.Store  // Required.
	// Sealer seals the records that applications carry. Optional: one with a key of
	// its own, whose records nobody else opens (AMB-15).
	Sealer *redirect.Sealer
	// OnRedirect hears of every redirect that was applied or refused (AMB-45).
	// Optional; called on the goroutine of the operation.
	OnRedirect func(RedirectEvent)
	// PeerNames says what an address is called by a client (fwps.Incoming.Client), nil if that is
	// not known: the newest name is FWPM_CONDITION_PEER_NAME of the client's connections that go
	// there, unless their owner has said it. Optional.
	PeerNames func(client, remote netip.Addr) *fwps.PeerNames
	// IsLocal tells what counts as this host (AMB-41), without zones. Optional: loopback and
	// the unspecified address.
	IsLocal func(netip.Addr) bool
	// BlockAtRedirect makes a block at CONNECT_REDIRECT and BIND_REDIRECT fail the
	// operation. The default is what Windows was observed to do: it goes on to
	// AUTH_CONNECT or RESOURCE_ASSIGNMENT (CH-16, AMB-23). A callout that failed
	// always blocks.
	BlockAtRedirect bool
	// FlowIdle is how long a datagram flow lives without traffic: the
	// UNICAST_LIFETIME of the classify options. Optional: 60 s (ALE-LAY-11).
	FlowIdle time.Duration
	// Now is the clock. Optional: time.Now.
	Now func() time.Time
}

// A RedirectEvent tells of one redirect, or of a part of one that was ignored.
type RedirectEvent struct {
	Layer    fwpm.LayerID
	Applied  bool
	Rule     string // for a refusal, the rule that refused
	Why      string
	Original netip.AddrPort
	Target   netip.AddrPort
	Filter   fwpm.FilterID
	Callout  fwpm.CalloutID

	ProcessID uint32 // who connects
	AppID     string
	// Err is why Target could not be connected to: nobody may listen there. Such
	// an event follows that of the redirect.
	Err error
}

// An Enforcer joins a classifier, a record store and a seal. It is safe for
// concurrent use.
type Enforcer struct {
	opts    Options
	sealer  *redirect.Sealer
	meet    *rendezvous
	closed  atomic.Bool
	ids     atomic.Uint64 // the newest endpoint or flow
	scratch sync.Pool
}

// scratch is what a classification fills; it is used again.
type scratch struct {
	in      fwps.Incoming
	d       fwps.Decision
	pending pending
}

// ErrClosed says that an Enforcer takes nothing through the layers any more.
var ErrClosed = fmt.Errorf("ale: the enforcer is closed: %w", ntstatus.DeviceNotReady)

// New returns an Enforcer. The caller closes it where the Store outlives it. It panics
// when a required option is missing.
func New(opts Options) *Enforcer {
	if opts.Classifier == nil || opts.Store == nil {
		panic("ale: Options.Classifier and Options.Store are required")
	}
	if opts.IsLocal == nil {
		opts.IsLocal = func(a netip.Addr) bool { return a.IsLoopback() || a.IsUnspecified() }
	}
	if opts.FlowIdle == 0 {
		opts.FlowIdle = time.Minute
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Sealer == nil {
		opts.Sealer = redirect.NewSealer()
	}
	e := &Enforcer{opts: opts, sealer: opts.Sealer, meet: newRendezvous(opts.Store, opts.Now)}
	e.scratch.New = func() any { return new(scratch) }
	return e
}

// Close gives the records of redirected connections back that nobody has accepted, as
// nobody can any more. What is asked of the Enforcer from then on, or waits in Accept, ends
// with ErrClosed; a connect that was let go goes on. Flows and sockets keep what they
// have until they are closed, and records can be sealed and opened. Later calls do nothing.
func (e *Enforcer) Close() {
	e.closed.Store(true)
	e.meet.close()
}

// open is nil until Close.
func (e *Enforcer) open() error {
	if e.closed.Load() {
		return ErrClosed
	}
	return nil
}

// Seal returns the opaque form of rs that a client may carry.
func (e *Enforcer) Seal(rs redirect.Records) ([]byte, error) { return e.sealer.Seal(rs) }

// Open undoes Seal. The caller owes a Release.
func (e *Enforcer) Open(sealed []byte) (redirect.Records, error) {
	return e.sealer.Open(sealed, e.opts.Store)
}

// Release gives the references of rs back.
func (e *Enforcer) Release(rs redirect.Records) { redirect.Release(e.opts.Store, rs) }

// releaseUnless gives references back that nobody has taken over: the operation failed, or
// code of others panicked, such as a store's.
func (e *Enforcer) releaseUnless(taken *bool, rs redirect.Records) {
	if !*taken {
		e.Release(rs)
	}
}

// LiveHops is how many redirects of connections that still exist are on record.
func (e *Enforcer) LiveHops() int { return e.opts.Store.Len() }

// classify asks one layer. The caller gives the scratch back with done.
func (e *Enforcer) classify(ctx context.Context, in *fwps.Incoming) *scratch {
	s := e.scratch.Get().(*scratch)
	s.in = *in
	e.opts.Classifier.Classify(ctx, &s.in, &s.d)
	return s
}

func (e *Enforcer) done(s *scratch) {
	s.in = fwps.Incoming{} // It holds on to nobody's memory.
	e.scratch.Put(s)
}

// notify asks a layer whose answer changes nothing (ALE-LAY-10).
func (e *Enforcer) notify(in *fwps.Incoming) {
	e.done(e.classify(context.Background(), in))
}

// decide asks a layer whose block ends the operation. So does the end of ctx
// meanwhile, whatever the options make of the callout that was cut off.
func (e *Enforcer) decide(ctx context.Context, in *fwps.Incoming) error {
	s := e.classify(ctx, in)
	defer e.done(s)
	if s.d.Action != fwp.ActionPermit {
		return blocked(in, &s.d)
	}
	return context.Cause(ctx)
}

func (e *Enforcer) tell(ev RedirectEvent) {
	if e.opts.OnRedirect != nil {
		e.opts.OnRedirect(ev)
	}
}

// local reports whether an address is this host's.
func (e *Enforcer) local(a netip.AddrPort) bool { return e.opts.IsLocal(a.Addr().Unmap().WithZone("")) }

func layer(v4 fwpm.LayerID, a netip.AddrPort) fwpm.LayerID { return v4.ForFamily(!a.Addr().Is4()) }

func plain(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// family returns local as the same family as remote; an unspecified one becomes
// the unspecified address of that family.
func family(local, remote netip.AddrPort) netip.AddrPort {
	l := plain(local)
	if l.Addr().Is4() == remote.Addr().Is4() {
		return l
	}
	return netip.AddrPortFrom(unspecified(remote.Addr()), l.Port())
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
