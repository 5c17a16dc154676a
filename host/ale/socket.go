package ale

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
)

// A Socket is a transport endpoint that is taken through the ALE layers. Every
// method that lets something happen on the real socket takes the function that
// does it, and calls it at its place in the order of the layers (ALE-LAY-03):
// without one it panics there.
//
// It is safe for concurrent use. Close must be called.
type Socket struct {
	e *Enforcer

	mu         sync.Mutex
	in         fwps.Incoming // who owns it; Local once it is bound
	bound      bool
	assigned   bool // RESOURCE_ASSIGNMENT permitted, which owes a RESOURCE_RELEASE
	listening  bool
	closed     bool
	abandoned  netip.AddrPort // valid: Close ended a connect before AUTH_CONNECT (SC-79)
	connected  netip.AddrPort // datagrams: what the application connected to
	records    redirect.Records
	flows      flowTable
	operations []*operation // under way in the layers
	grants     []*grant     // to be asked about again
	implicit   BindFunc
	source     SourceFunc
	binding    bool          // an implicit bind is under way
	settled    chan struct{} // closed when it ends; nil: nobody waits for it
	spare      *Flow         // a Carrier's, used again
}

// A BindFunc binds the real socket and returns what it is bound to.
type BindFunc func(ctx context.Context, want netip.AddrPort) (local netip.AddrPort, err error)

// NewSocket returns the endpoint of a new socket of in's owner and protocol.
// in.Local says which family it has and, if its port is not zero, that it is bound
// already; in.Records what was set on it, with the references.
func (e *Enforcer) NewSocket(in fwps.Incoming) *Socket {
	s := new(Socket)
	s.begins(e, in)
	return s
}

func (s *Socket) begins(e *Enforcer, in fwps.Incoming) {
	if in.EndpointID == 0 {
		in.EndpointID = e.ids.Add(1)
	}
	*s = Socket{e: e, in: in, records: in.Records, bound: in.Local.Port() != 0}
	s.in.Records = nil
}

// OnImplicitBind gives the function that binds the real socket when it is used
// unbound. Without one the system chooses, and a callout that redirects such a
// bind is refused.
func (s *Socket) OnImplicitBind(bind BindFunc) {
	s.implicit = bind
}

// SetRecords is SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS: the records count when
// the socket connects; a second set replaces the first (SC-41). It takes the
// references over, also when it is too late for the records to have an effect.
func (s *Socket) SetRecords(rs redirect.Records) {
	s.mu.Lock()
	old := s.records
	if s.records = rs; s.closed {
		old, s.records = append(slices.Clone(old), rs...), nil
	}
	s.mu.Unlock()
	s.e.Release(old)
}

// SetPeerName is what the socket's owner says that its peer is called:
// FWPM_CONDITION_PEER_NAME of the connections that follow. Empty is not known.
func (s *Socket) SetPeerName(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in.Other = withPeerName(s.in.Other, name) // What is under way has the old one.
}

// withPeerName returns a copy with the name; empty takes it out.
func withPeerName(other map[fwpm.ConditionID]fwp.Value, name string) map[fwpm.ConditionID]fwp.Value {
	other = maps.Clone(other)
	if other == nil {
		other = map[fwpm.ConditionID]fwp.Value{}
	}
	delete(other, fwpm.ConditionPeerName)
	if name != "" {
		other[fwpm.ConditionPeerName] = fwp.Blob(name)
	}
	return other
}

// EndpointID is the FWPS_METADATA_FIELD_TRANSPORT_ENDPOINT_HANDLE of the socket.
func (s *Socket) EndpointID() uint64 { return s.in.EndpointID }

// LocalAddr is what the socket is bound to, not valid if it is not.
func (s *Socket) LocalAddr() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.bound {
		return netip.AddrPort{}
	}
	return s.in.Local
}

// incoming is what is known about the socket now.
func (s *Socket) incoming() fwps.Incoming {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known()
}

func (s *Socket) known() fwps.Incoming {
	in := s.in
	in.Records = s.records
	return in
}

// Listen runs AUTH_LISTEN and lets the socket listen.
func (s *Socket) Listen(ctx context.Context, listen func() error) (err error) {
	op, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer s.end(op, &err)
	in := s.incoming()
	in.Layer = layer(fwpm.LayerALEAuthListenV4, in.Local)
	g, err := s.e.grant(op.ctx, &in)
	if err != nil {
		return err
	}
	if err := listen(); err != nil {
		return err
	}
	s.granted(g)
	s.mu.Lock()
	s.listening = true
	s.mu.Unlock()
	return nil
}

// Close runs ENDPOINT_CLOSURE and RESOURCE_RELEASE for what is owed (ALE-LAY-07)
// and ends the flows of a datagram socket. The flows of connections are closed by
// themselves. Later calls do nothing.
//
// Operations that callouts hold are ended, and Close does not wait for them: the
// last of them does what is owed (AMB-43).
func (s *Socket) Close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	idle := len(s.operations) == 0
	for _, op := range s.operations {
		op.cancel(errCancelled)
	}
	s.mu.Unlock()
	if idle {
		s.teardown()
	}
}

// teardown is the end of a closed socket that nobody uses any more.
func (s *Socket) teardown() {
	s.mu.Lock()
	in, flows, records := s.in, s.flows.empty(), s.records
	closure := s.listening || s.flows.any || s.abandoned.IsValid()
	release := s.assigned
	in.Remote, s.records = s.abandoned, nil
	s.mu.Unlock()

	if closure {
		in.Layer = layer(fwpm.LayerALEEndpointClosureV4, in.Local)
		s.e.notify(&in)
	}
	for _, f := range flows {
		f.Close()
	}
	if release {
		s.e.release(in, in.Local)
	}
	s.e.Release(records)
}
