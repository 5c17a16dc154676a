package ale

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
)

// A Flow is a connection, or the datagrams between two addresses, that was let go.
type Flow struct {
	// Records of an accepted or received flow say how it came here; those of an
	// outgoing one were set on its socket.
	Records                 redirect.Records
	Redirected              bool
	Original, Remote, Local netip.AddrPort // what was asked for, and what it is

	e          *Enforcer
	fwps       fwps.Flow
	in         fwps.Incoming  // what was authorized
	first      *fwps.Incoming // what was authorized before it, if anything (ALE-LAY-14)
	owned      redirect.Records
	once       sync.Once
	generation atomic.Uint64 // of the layer that authorized it
	refused    atomic.Pointer[BlockedError]
	last       time.Time // datagrams: the newest, under the socket's lock
	of         *Socket   // datagrams: whose table has it, by its peer
	peer       peer
	datagram   bool
	sourced    bool // somebody found out where it comes from
	detached   bool // from the beginning: a Carrier's
}

// flow makes the flow of an outgoing connection, which has the references of in.
func (s *Socket) flow(in fwps.Incoming, p *plan) *Flow {
	f := s.spare
	if f == nil {
		f = new(Flow)
	}
	f.begins(s.e, in, p)
	f.detached = s.spare != nil
	return f
}

func (f *Flow) begins(e *Enforcer, in fwps.Incoming, p *plan) {
	*f = Flow{Records: in.Records, Redirected: p.redirected, Original: in.Remote, Remote: p.remote, Local: in.Local, e: e, in: in, owned: in.Records}
	f.fwps.ID = e.ids.Add(1)
	f.datagram = in.Protocol != fwps.ProtocolTCP
}

// ID is the FWPS_METADATA_FIELD_FLOW_HANDLE of the flow.
func (f *Flow) ID() uint64 { return f.fwps.ID }

// EndpointID is the FWPS_METADATA_FIELD_TRANSPORT_ENDPOINT_HANDLE of the flow's
// endpoint, for an accepted connection its own.
func (f *Flow) EndpointID() uint64 { return f.in.EndpointID }

// Accepted reports whether the flow came in: whether this is the proxy's side of
// a redirected connection and not the application's (RED-Q-03).
func (f *Flow) Accepted() bool { return f.in.Inbound }

// OnAbort gives the function that ends the connection when a callout aborts the
// flow (FwpsFlowAbort0). One that did so already has it called at once. A flow of a
// datagram socket ends without it.
func (f *Flow) OnAbort(abort func()) {
	if f.of == nil {
		f.fwps.OnAbort(abort)
		return
	}
	f.fwps.OnAbort(func() {
		f.leave()
		if abort != nil {
			abort()
		}
	})
}

// Aborted reports whether a callout has aborted the flow already, for who cannot end its
// connection later.
func (f *Flow) Aborted() bool { return f.fwps.Aborted() }

// Abort is FwpsFlowAbort0: it ends the connection.
func (f *Flow) Abort() { f.fwps.Abort() }

// RemoveContext is FwpsFlowRemoveContext0 for a callout's context at a layer; see
// fwps.Flow.Remove.
func (f *Flow) RemoveContext(l fwpm.LayerID, callout fwpm.CalloutID) (pending bool, err error) {
	return f.fwps.Remove(l, callout)
}

// ask asks the layer that authorizes the flow, about each of its two destinations
// if it has two.
func (f *Flow) ask(ctx context.Context) error { return f.authorize(ctx, 0, 0) }

// authorize notes the generation that it asked about when it is over: what passes
// meanwhile asks for itself.
func (f *Flow) authorize(ctx context.Context, flags fwp.ConditionFlags, why fwp.ReauthorizeReason) error {
	generation := f.e.opts.Classifier.Generation(f.in.Layer)
	for _, about := range [...]*fwps.Incoming{f.first, &f.in} {
		if about == nil {
			continue
		}
		in := *about
		in.Flow, in.ReauthorizeReason = &f.fwps, why
		in.Flags |= flags
		if err := f.e.decide(ctx, &in); err != nil {
			return err
		}
	}
	f.generation.Store(generation)
	return nil
}

// Established says that a connection which was let go in progress (ErrInProgress) is
// established: FLOW_ESTABLISHED is asked, which cannot refuse (ALE-LAY-10). Of any other
// that is done already.
func (f *Flow) Established() {
	in := f.in
	in.Flow = &f.fwps
	in.Layer = layer(fwpm.LayerALEFlowEstablishedV4, in.Remote)
	f.e.notify(&in)
	if f.fwps.Observed() {
		f.observed()
	}
}

// observed tells callouts that want to know.
func (f *Flow) observed() {
	in := f.in
	in.Layer = layer(fwpm.LayerALEFlowEstablishedV4, in.Remote)
	f.fwps.Establish(&in)
}

// Reauthorize asks the layer that authorized the flow again if its filters
// changed since. It is called for each send and receive and costs a comparison
// otherwise (ALE-LAY-12). A *BlockedError says that the flow may not go on; it
// stays so, unless ctx ended meanwhile: the next one asks again then.
func (f *Flow) Reauthorize(ctx context.Context) error {
	if b := f.refused.Load(); b != nil {
		return b
	}
	since := f.generation.Load()
	if since == f.e.opts.Classifier.Generation(f.in.Layer) {
		return nil
	}
	err := f.authorize(ctx, fwp.FlagIsReauthorize, f.e.opts.Classifier.ReauthorizeReason(f.in.Layer, since))
	if b, ok := err.(*BlockedError); ok && ctx.Err() == nil && f.refused.CompareAndSwap(nil, b) {
		f.fwps.Abort()
	}
	return err
}

// hold keeps the record of a redirect as long as the flow, as those that the connection
// had before: it goes when both ends of the redirected connection are closed (AMB-19).
func (f *Flow) hold(p *plan) {
	if f.detached {
		return
	}
	redirect.Acquire(f.e.opts.Store, p.alone)
	f.owned = f.owned.With(p.hop)
}

// Detach says that nobody will see the connection close. The flow ends for the
// callouts that associated a context with it, and holds no record from then on.
func (f *Flow) Detach() {
	f.once.Do(func() {
		f.fwps.End()
		f.e.Release(f.owned)
	})
}

// closeUnless ends a flow that was not let go; see releaseUnless.
func (f *Flow) closeUnless(goes *bool) {
	if !*goes {
		f.Close()
	}
}

// Close ends the flow: ENDPOINT_CLOSURE, which a datagram socket has once for all
// its flows (ALE-LAY-07), the contexts that callouts associated, and the flow's
// references on records. Later calls do nothing.
func (f *Flow) Close() {
	f.once.Do(func() {
		if !f.datagram {
			in := f.in
			in.Flow = &f.fwps
			in.Layer = layer(fwpm.LayerALEEndpointClosureV4, in.Remote)
			f.e.notify(&in)
		}
		f.fwps.End()
		f.e.Release(f.owned)
	})
}
