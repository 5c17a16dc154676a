package fwps

import (
	"net/netip"
	"slices"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/redirect"
)

// apply makes a version of what the callout acquired if it changed something
// (CH-08, SC-66).
func (d *Decision) apply() {
	a := &d.acq
	switch {
	case d.Connect != nil && !a.connect.same(d.Connect):
		if r := d.PushConnect(); r != nil {
			previous := r.Previous
			r.copyFrom(&a.connect)
			r.Previous, r.ModifierFilterID = previous, 0
			a.record, a.context = room(a.record, r.Record), room(a.context, r.LocalRedirectContext)
			return
		}
	case d.Bind != nil && (a.bind.Local != d.Bind.Local || a.bind.PortReservationToken != d.Bind.PortReservationToken):
		if r := d.PushBind(); r != nil {
			r.Local, r.PortReservationToken = a.bind.Local, a.bind.PortReservationToken
			return
		}
	default:
		return
	}
	d.misuse = "AMB-29: " + ChangedTooOften
}

// room is memory of ours for as much, so that who appends as much again allocates nothing.
func room(ours, as []byte) []byte { return slices.Grow(ours[:0], len(as)) }

// Applied says whether the callout of the last question made new versions of the
// request, and whether it wants to hear of later changes. What it acquired and did
// not apply is discarded (SC-67).
func (d *Decision) Applied() (changed, reauthorize bool) {
	a := &d.acq
	if !a.touched {
		return false, false
	}
	if a.held {
		d.misuse = "AMB-30: acquired layer data was not applied; the change is discarded"
	}
	if d.verdict.Action == fwp.ActionBlock && d.verdict.ClearActionRight { // As acquire left it (AMB-22).
		d.verdict.Action, d.verdict.ClearActionRight = fwp.ActionContinue, false
	}
	return d.nversion > a.before, a.reauthorize
}

// Discard takes the versions back that the callout of the last question made
// (AMB-42).
func (d *Decision) Discard() {
	d.nversion = d.acq.before
	switch {
	case d.Connect != nil:
		d.Connect = &d.connects[d.nversion-1]
	case d.Bind != nil:
		d.Bind = &d.binds[d.nversion-1]
	}
}

// PushConnect makes a new version of the connect request that points to the
// one it replaces. It returns nil when there are MaxVersions already.
func (d *Decision) PushConnect() *ConnectRequest {
	n := d.nversion
	if n >= len(d.connects) {
		return nil
	}
	r := &d.connects[n]
	r.PortReservationToken, r.LocalRedirectTargetPID, r.LocalRedirectHandle = 0, 0, 0
	r.Record = r.Record[:0]
	r.LocalRedirectContext = r.LocalRedirectContext[:0]
	r.ModifierFilterID, r.ModifierCallout, r.ModifierProvider, r.Observer = 0, "", "", nil
	r.Local, r.Remote = netip.AddrPort{}, netip.AddrPort{}
	if d.Connect != nil {
		r.Local = d.Connect.Local
	}
	r.Previous, d.Connect, d.nversion = d.Connect, r, n+1
	return r
}

// PushBind is PushConnect for the bind request.
func (d *Decision) PushBind() *BindRequest {
	if d.nversion == MaxVersions {
		return nil
	}
	r := &d.binds[d.nversion]
	d.nversion++
	*r = BindRequest{Previous: d.Bind}
	d.Bind = r
	return r
}

// Push makes the version that a verdict asks for: the sugar of Verdict.Redirect. It is
// the filter's, and its callout's of a provider (CH-08). False means there are
// MaxVersions already.
func (d *Decision) Push(v *Verdict, h redirect.Handle, f *fwpm.Filter, provider fwpm.ProviderID) bool {
	if d.Bind != nil {
		r := d.PushBind()
		if r != nil {
			r.Local, r.ModifierFilterID, r.ModifierCallout = v.To, f.ID, f.Callout
		}
		return r != nil
	}
	n, old := d.nversion, d.Connect
	if n >= len(d.connects) {
		return false
	}
	r := &d.connects[n]
	if r.Record = append(r.Record[:0], v.Record...); len(v.Context) > 0 {
		r.LocalRedirectContext = append(r.LocalRedirectContext[:0], v.Context...)
	} else {
		r.LocalRedirectContext = r.LocalRedirectContext[:0]
	}
	if v.NoHandle {
		h = 0
	}
	r.Local, r.Remote, r.PortReservationToken = old.Local, v.To, 0
	r.LocalRedirectTargetPID, r.LocalRedirectHandle, r.Observer = v.TargetPID, h, v.Observer
	r.ModifierFilterID, r.ModifierCallout, r.ModifierProvider = f.ID, f.Callout, provider
	r.Previous, d.Connect, d.nversion = old, r, n+1
	return true
}

// Stamp says whose the versions are that a callout applied (CH-08).
func (d *Decision) Stamp(f *fwpm.Filter, provider fwpm.ProviderID) {
	for r := d.Connect; r != nil && r.Previous != nil && r.ModifierFilterID == 0; r = r.Previous {
		r.ModifierFilterID, r.ModifierCallout, r.ModifierProvider = f.ID, f.Callout, provider
	}
	for r := d.Bind; r != nil && r.Previous != nil && r.ModifierFilterID == 0; r = r.Previous {
		r.ModifierFilterID, r.ModifierCallout = f.ID, f.Callout
	}
}

// Versions is how many versions of the request there are, the original included.
func (d *Decision) Versions() int { return d.nversion }

// Redirected reports whether a callout changed the request.
func (d *Decision) Redirected() bool { return d.nversion > 1 }
