package fwps

import (
	"bytes"
	"net/netip"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/redirect"
)

// A ConnectRequest is FWPS_CONNECT_REQUEST0: one version of where a connection
// goes. Changing it makes a new version that points to the one it replaced.
type ConnectRequest struct {
	// Local is honoured for TCP only (CH-07, AMB-24).
	Local, Remote          netip.AddrPort
	PortReservationToken   uint64 // PT-01; zero is none
	LocalRedirectTargetPID uint32
	LocalRedirectHandle    redirect.Handle
	// Record comes back to the callout, LocalRedirectContext goes to the proxy.
	// Both are buffers of the Decision: copy what must outlive it.
	Record, LocalRedirectContext []byte
	// Observer hears when the connection was sent there. Optional.
	Observer Observer

	// Read-only for callouts.
	ModifierFilterID fwpm.FilterID
	ModifierCallout  fwpm.CalloutID
	ModifierProvider fwpm.ProviderID
	Previous         *ConnectRequest // nil: never modified (CH-08)
}

// same reports whether a version would change nothing (SC-66).
func (r *ConnectRequest) same(o *ConnectRequest) bool {
	return r.Local == o.Local && r.Remote == o.Remote && r.PortReservationToken == o.PortReservationToken &&
		r.LocalRedirectTargetPID == o.LocalRedirectTargetPID && r.LocalRedirectHandle == o.LocalRedirectHandle &&
		bytes.Equal(r.Record, o.Record) && bytes.Equal(r.LocalRedirectContext, o.LocalRedirectContext)
}

// copyFrom takes o's writable members into r's own buffers.
func (r *ConnectRequest) copyFrom(o *ConnectRequest) {
	record, context := append(r.Record[:0], o.Record...), append(r.LocalRedirectContext[:0], o.LocalRedirectContext...)
	*r = *o
	r.Record, r.LocalRedirectContext = record, context
}

// A BindRequest is FWPS_BIND_REQUEST0: one version of what a socket binds to.
type BindRequest struct {
	Local                netip.AddrPort
	PortReservationToken uint64

	// Read-only for callouts.
	ModifierFilterID fwpm.FilterID
	ModifierCallout  fwpm.CalloutID
	Previous         *BindRequest // nil: never modified (BR-03)
}

// MaxVersions bounds the versions of one request, the original included.
const MaxVersions = 12

// ChangedTooOften is why no other version is made (AMB-29).
const ChangedTooOften = "the request was changed 11 times already, which is the most: let fewer filters change one request"
