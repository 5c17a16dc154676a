package wsk

import (
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// CompleteRequest is IoCompleteRequest by the driver that has the IRP: its
// completion goes on upward, with the status of SetIoStatus. It is for a
// passed-down IRP that the driver kept (IRP-04) or never passed down.
func (p *IRP) CompleteRequest() {
	p.mu.Lock()
	mine := p.usable("completes")
	if mine && p.current == len(p.stack) {
		p.misused("IRP-14", "completes a second time")
		mine = false
	}
	p.mu.Unlock()
	if mine {
		p.up()
	}
}

// take makes WSK the driver that has the IRP, for a call of a client. Otherwise
// the status says why not: an IRP in flight stays as it is (IRP-14); an own one
// without a proper routine is completed, so far as it can be (IRP-02).
func (p *IRP) take(c *Client) ntstatus.Status {
	if p == nil {
		return ntstatus.InvalidParameter // WSK-RET-06
	}
	p.mu.Lock()
	p.watch(c)
	switch {
	case !p.usable("calls with"):
		p.mu.Unlock()
		return ntstatus.InvalidParameter
	case p.current == 0:
		p.misused("IRP-01", "calls with an IRP that has no free stack location")
		p.mu.Unlock()
		return ntstatus.InvalidParameter
	}
	if p.trail != nil {
		p.trail.client, p.trail.used = c, callSite()
	}
	own := p.allocated && p.current == len(p.stack)
	p.current--
	l := &p.stack[p.current]
	l.pending = false
	p.inflight, p.socket, p.pendingReturned, p.status = true, nil, false, IoStatus{Status: ntstatus.Pending}
	bad := own && (l.routine == nil || l.when != InvokeAlways)
	if bad {
		p.misused("IRP-02", "calls with an own IRP that has no routine for success, error and cancel")
	}
	p.mu.Unlock()
	if bad {
		p.complete(ntstatus.InvalidParameter, 0)
		return ntstatus.InvalidParameter
	}
	return ntstatus.Success
}

// pend marks that the call returns STATUS_PENDING. cancel, which may be nil,
// runs at most once and only asks: whoever completes the IRP still does. It reports
// whether the caller waits anyway.
func (p *IRP) pend(cancel func()) (waited bool) {
	p.mu.Lock()
	p.stack[p.current].pending = true
	now := p.cancelled && cancel != nil
	if !now {
		p.cancelRoutine = cancel
	}
	waited = p.waited
	p.mu.Unlock()
	if now {
		cancel()
	}
	return waited
}

// complete ends the request.
func (p *IRP) complete(s ntstatus.Status, information int) {
	p.mu.Lock()
	p.inflight, p.cancelRoutine = false, nil
	p.status = IoStatus{s, information}
	p.mu.Unlock()
	p.up()
}

// up is IoCompleteRequest: each driver above hears of it until one keeps the
// IRP, which from then on is not touched.
func (p *IRP) up() {
	p.mu.Lock()
	p.completions++
	this := p.completions
	if p.trail != nil {
		p.trail.ended = callSite()
	}
	for {
		if p.current == len(p.stack) {
			made := p.made
			p.mu.Unlock()
			if made != nil {
				made(p)
			}
			return
		}
		l := p.stack[p.current]
		p.stack[p.current] = location{}
		p.current++
		p.pendingReturned = l.pending
		runs := l.runs(p.status.Status, p.cancelled)
		if !runs && l.pending && p.current < len(p.stack) {
			p.stack[p.current].pending = true // The I/O manager marks for a driver that does not listen.
		}
		p.mu.Unlock()
		if runs && l.routine(p, l.context) == ntstatus.MoreProcessingRequired {
			return
		}
		p.mu.Lock()
		if !p.goesOn(this, runs) {
			p.mu.Unlock()
			return
		}
	}
}

// goesOn tells whether a completion that a routine let go on may: not if the
// routine completed or freed the IRP itself. The IRP is locked.
func (p *IRP) goesOn(completion int, ran bool) bool {
	switch {
	case p.freed:
		p.misused("IRP-02", "a routine freed its IRP and let the completion go on, completed")
		return false
	case p.completions != completion || p.inflight:
		p.misused("IRP-04", "a routine completed or passed on its IRP and let the completion go on, completed")
		return false
	case ran && p.allocated && p.current == len(p.stack):
		p.misused("IRP-02", "the routine of an own IRP did not return STATUS_MORE_PROCESSING_REQUIRED, completed")
	}
	return true
}
