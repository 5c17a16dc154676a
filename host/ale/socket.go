package ale

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A Socket is a transport endpoint that is taken through the ALE layers. Every
// method that lets something happen on the real socket takes the function that
// does it, and calls it at its place in the order of the layers (ALE-LAY-03).
//
// It is safe for concurrent use. Close must be called.
type Socket struct {
	e *Enforcer

	mu        sync.Mutex
	in        fwps.Incoming // who owns it; Local once it is bound
	bound     bool
	assigned  bool // RESOURCE_ASSIGNMENT was asked, which owes a RESOURCE_RELEASE
	listening bool
	closed    bool
	connected netip.AddrPort // datagrams: what the application connected to
	records   redirect.Records
	flows     flowTable
	implicit  func(ctx context.Context, want netip.AddrPort) (netip.AddrPort, error)
}

// NewSocket returns the endpoint of a new socket of in's owner and protocol.
// in.Local says which family it has and, if its port is not zero, that it is bound
// already; in.Records what was set on it, with the references.
func (e *Enforcer) NewSocket(in fwps.Incoming) *Socket {
	if in.EndpointID == 0 {
		in.EndpointID = e.ids.Add(1)
	}
	s := &Socket{e: e, in: in, records: in.Records, bound: in.Local.Port() != 0}
	s.in.Records = nil
	return s
}

// OnImplicitBind gives the function that binds the real socket when it is used
// unbound. Without one the system chooses, and a callout that redirects such a
// bind is refused.
func (s *Socket) OnImplicitBind(bind func(ctx context.Context, want netip.AddrPort) (netip.AddrPort, error)) {
	s.implicit = bind
}

// SetRecords is SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS: the records count when
// the socket connects; a second set replaces the first (SC-41). It takes the
// references over, also when it is too late for the records to have an effect.
func (s *Socket) SetRecords(rs redirect.Records) {
	s.mu.Lock()
	old := s.records
	s.records = rs
	s.mu.Unlock()
	s.e.Release(old)
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
	in := s.in
	in.Records = s.records
	return in
}

func (s *Socket) check() error {
	if s.closed {
		return fmt.Errorf("ale: the socket is closed: %w", ntstatus.FileForcedClosed)
	}
	return nil
}

// Listen runs AUTH_LISTEN and lets the socket listen.
func (s *Socket) Listen(ctx context.Context, listen func() error) error {
	in := s.incoming()
	in.Layer = layer(fwpm.LayerALEAuthListenV4, in.Local)
	if err := s.e.decide(ctx, &in); err != nil {
		return err
	}
	if err := listen(); err != nil {
		return err
	}
	s.mu.Lock()
	s.listening = true
	s.mu.Unlock()
	return nil
}

// Close runs ENDPOINT_CLOSURE and RESOURCE_RELEASE for what is owed (ALE-LAY-07)
// and ends the flows of a datagram socket. The flows of connections are closed by
// themselves. Later calls do nothing.
func (s *Socket) Close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	in, flows, records := s.in, s.flows.all(), s.records
	closure := s.listening || s.flows.any
	release := s.assigned
	s.mu.Unlock()

	if closure {
		in.Layer = layer(fwpm.LayerALEEndpointClosureV4, in.Local)
		s.e.notify(&in)
	}
	for _, f := range flows {
		f.Close()
	}
	if release {
		in.Layer = layer(fwpm.LayerALEResourceReleaseV4, in.Local)
		s.e.notify(&in)
	}
	s.e.Release(records)
}
