package wsk

import (
	"sync"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// IoStatus is IO_STATUS_BLOCK.
type IoStatus struct {
	Status      ntstatus.Status
	Information int
}

// Invoke says when a completion routine runs (IRP-08).
type Invoke uint8

// The three flags of IoSetCompletionRoutine.
const (
	InvokeOnSuccess Invoke = 1 << iota
	InvokeOnError
	InvokeOnCancel
	InvokeAlways = InvokeOnSuccess | InvokeOnError | InvokeOnCancel
)

// A CompletionRoutine runs when an IRP is completed, on any goroutine, possibly
// before the call that took the IRP returns (IRP-12).
type CompletionRoutine func(irp *IRP, context any) ntstatus.Status

// An IRP is one request. It is in flight from a call until its completion, and
// is completed exactly once, whatever the call returns (WSK-RET-05).
type IRP struct {
	mu        sync.Mutex
	own       bool
	owner     func(*IRP)
	routine   CompletionRoutine
	context   any
	when      Invoke
	inflight  bool
	cancelled bool
	onCancel  func()
	status    IoStatus
	socket    *Socket
	pending   bool
}

// AllocateIRP is IoAllocateIrp: the caller's own IRP, which needs a completion
// routine that returns STATUS_MORE_PROCESSING_REQUIRED (IRP-02).
func AllocateIRP() *IRP { return &IRP{own: true} }

// PassDownIRP makes an IRP that came from above: owner hears of its completion
// unless the routine keeps it (IRP-04).
func PassDownIRP(owner func(*IRP)) *IRP { return &IRP{owner: owner} }

// SetCompletionRoutine is IoSetCompletionRoutine.
func (p *IRP) SetCompletionRoutine(fn CompletionRoutine, context any, when Invoke) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.routine, p.context, p.when = fn, context, when
}

// IoStatus is how the request ended.
func (p *IRP) IoStatus() IoStatus { p.mu.Lock(); defer p.mu.Unlock(); return p.status }

// Socket is the socket that Client.Socket or Accept made.
func (p *IRP) Socket() *Socket { p.mu.Lock(); defer p.mu.Unlock(); return p.socket }

// PendingReturned tells whether the call returned STATUS_PENDING.
func (p *IRP) PendingReturned() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.pending }

// Cancel is IoCancelIrp: it reports whether there was something to cancel.
func (p *IRP) Cancel() bool {
	p.mu.Lock()
	p.cancelled = true
	fn := p.onCancel
	p.onCancel = nil
	p.mu.Unlock()
	if fn == nil {
		return false
	}
	fn()
	return true
}

// Reuse is IoReuseIrp: for an own IRP that is not in flight (IRP-11).
func (p *IRP) Reuse(s ntstatus.Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.own || p.inflight {
		panic("wsk: Reuse of an IRP that is in flight or not the caller's own")
	}
	p.routine, p.context, p.when, p.cancelled, p.onCancel, p.socket, p.pending = nil, nil, 0, false, nil, nil, false
	p.status = IoStatus{Status: s}
}

// CompleteRequest is IoCompleteRequest, for a passed-down IRP whose routine
// answered STATUS_MORE_PROCESSING_REQUIRED.
func (p *IRP) CompleteRequest() {
	if p.owner != nil {
		p.owner(p)
	}
}

// begin takes the IRP for a call. A status other than success leaves it
// untouched (IRP-14), or completed when its routine is missing.
func (p *IRP) begin() ntstatus.Status {
	if p == nil {
		return ntstatus.InvalidParameter // WSK-RET-06
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inflight || p.own && (p.routine == nil || p.when != InvokeAlways) {
		return ntstatus.InvalidParameter // IRP-02, IRP-14
	}
	p.inflight, p.status, p.socket, p.pending = true, IoStatus{}, nil, false
	return ntstatus.Success
}

// complete ends the request and returns its status.
func (p *IRP) complete(s ntstatus.Status, information int) ntstatus.Status {
	p.mu.Lock()
	p.inflight, p.onCancel = false, nil
	p.status = IoStatus{s, information}
	fn, context := p.routine, p.context
	run := s.Ok() && p.when&InvokeOnSuccess != 0 || !s.Ok() && p.when&InvokeOnError != 0 || p.cancelled && p.when&InvokeOnCancel != 0
	p.mu.Unlock()
	if fn != nil && run && fn(p, context) == ntstatus.MoreProcessingRequired {
		return s
	}
	p.CompleteRequest()
	return s
}

// pend runs op on its own goroutine; cancel ends it early.
func (p *IRP) pend(cancel func(), op func() (ntstatus.Status, int)) ntstatus.Status {
	p.mu.Lock()
	p.onCancel, p.pending = cancel, true
	already := p.cancelled
	p.mu.Unlock()
	if already && cancel != nil {
		cancel()
	}
	go func() {
		s, n := op()
		p.complete(s, n)
	}()
	return ntstatus.Pending
}
