package wsk

import (
	"sync"
	"sync/atomic"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// IoStatus is IO_STATUS_BLOCK.
type IoStatus struct {
	Status ntstatus.Status
	// Information is a number of bytes. For the calls that make a socket it is
	// zero, and IRP.Socket is what C has here.
	Information int
}

// Invoke says when a completion routine runs (IRP-08).
type Invoke uint8

// The three flags of IoSetCompletionRoutine. A routine runs if one of its
// conditions holds.
const (
	InvokeOnSuccess Invoke = 1 << iota // NT_SUCCESS(IoStatus.Status)
	InvokeOnError
	InvokeOnCancel // Irp->Cancel, whatever the status
	InvokeAlways   = InvokeOnSuccess | InvokeOnError | InvokeOnCancel
)

// A CompletionRoutine runs when an IRP is completed, on any goroutine, possibly
// before the call that took the IRP returns (IRP-12). It gets the IRP and the
// context of SetCompletionRoutine (IRP-09). STATUS_MORE_PROCESSING_REQUIRED
// ends the completion: the IRP is then the routine's (IRP-02, IRP-04).
type CompletionRoutine func(irp *IRP, context any) ntstatus.Status

// A location is IO_STACK_LOCATION: what the driver above asked to hear about
// the driver this location belongs to.
type location struct {
	routine CompletionRoutine
	context any
	when    Invoke
	pending bool // SL_PENDING_RETURNED
}

func (l *location) runs(s ntstatus.Status, cancelled bool) bool {
	return l.routine != nil && (s.Ok() && l.when&InvokeOnSuccess != 0 ||
		!s.Ok() && l.when&InvokeOnError != 0 || cancelled && l.when&InvokeOnCancel != 0)
}

// An IRP is one request. A call takes it and completes it exactly once,
// whatever the call returns (WSK-RET-05).
//
// The stack has one location for each driver below the maker. Drivers are
// numbered from the lowest; the maker itself has none.
type IRP struct {
	mu        sync.Mutex
	stack     []location
	current   int        // the location of the driver that has the IRP; len(stack): its maker
	allocated bool       // by IoAllocateIrp: nobody is told at the top
	made      func(*IRP) // the I/O manager, told at the top
	one       [1]location

	inflight        bool // WSK has it
	freed           bool
	pendingReturned bool
	cancelled       bool
	cancelRoutine   func()
	status          IoStatus
	socket          *Socket
	completions     int           // how often the IRP began to go up
	trail           *trail        // nil unless a verifier watches
	number          atomic.Uint64 // in a trace
}

// maxStack is the largest StackSize, a CCHAR.
const maxStack = 127

func newIRP(stackSize int) *IRP {
	if stackSize < 1 || stackSize > maxStack {
		return nil
	}
	p := &IRP{current: stackSize}
	if p.stack = p.one[:]; stackSize > 1 {
		p.stack = make([]location, stackSize)
	}
	return p
}

// AllocateIRP is IoAllocateIrp: an IRP of the caller's own, for itself and the
// drivers below it (IRP-01). WSK needs one location. It is nil, as in C, if
// stackSize is not in 1..127.
//
// An own IRP needs a completion routine, set with InvokeAlways, that returns
// STATUS_MORE_PROCESSING_REQUIRED (IRP-02). Its owner frees it or uses it again.
func AllocateIRP(stackSize int) *IRP {
	p := newIRP(stackSize)
	if p != nil {
		p.allocated = true
	}
	return p
}

// BuildIRP makes an IRP as the I/O manager makes one for a device stack
// (IoBuildDeviceIoControlRequest): CallDriver sends it down, and done hears of
// its completion. It is nil if stackSize is not in 1..127.
func BuildIRP(stackSize int, done func(*IRP)) *IRP {
	p := newIRP(stackSize)
	if p != nil {
		p.made = done
	}
	return p
}

// CallDriver is IoCallDriver: it gives the IRP to the next driver's dispatch
// routine and returns what that returned. Without a free location nothing
// happens and the status is STATUS_INVALID_PARAMETER.
func (p *IRP) CallDriver(dispatch func(*IRP) ntstatus.Status) ntstatus.Status {
	p.mu.Lock()
	if !p.usable("passes down") || p.current == 0 {
		p.mu.Unlock()
		return ntstatus.InvalidParameter
	}
	p.current--
	p.mu.Unlock()
	return dispatch(p)
}

// SetCompletionRoutine is IoSetCompletionRoutine: fn is told about the next
// lower driver, of which WSK is one. Nothing else has to be set up (IRP-06).
func (p *IRP) SetCompletionRoutine(fn CompletionRoutine, context any, when Invoke) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.usable("sets the routine of") || p.current == 0 {
		return // The call that follows refuses the IRP.
	}
	p.stack[p.current-1] = location{routine: fn, context: context, when: when}
}

// IoStatus is how the request ended, STATUS_PENDING while it is in flight.
func (p *IRP) IoStatus() IoStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.freed {
		p.misused("IRP-03", "reads an IRP that was freed")
	}
	return p.status
}

// SetIoStatus sets Irp->IoStatus, which a driver does before CompleteRequest.
func (p *IRP) SetIoStatus(s IoStatus) { p.mu.Lock(); defer p.mu.Unlock(); p.status = s }

// Socket is the socket that a call made: IoStatus.Information of WskSocket,
// WskSocketConnect and WskAccept.
func (p *IRP) Socket() *Socket { p.mu.Lock(); defer p.mu.Unlock(); return p.socket }

func (p *IRP) setSocket(s *Socket) { p.mu.Lock(); p.socket = s; p.mu.Unlock() }

// PendingReturned tells a completion routine whether the driver below returned
// STATUS_PENDING. A routine for a passed-down IRP then calls MarkPending (IRP-05).
func (p *IRP) PendingReturned() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.pendingReturned }

// MarkPending is IoMarkIrpPending: the driver that has the IRP returns, or
// returned, STATUS_PENDING for it.
func (p *IRP) MarkPending() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current < len(p.stack) {
		p.stack[p.current].pending = true
	}
}

// Cancel is IoCancelIrp: it reports whether there was a cancel routine to call.
// The IRP may still end with success; if it does not, it is STATUS_CANCELLED (IRP-10).
func (p *IRP) Cancel() bool {
	p.mu.Lock()
	p.cancelled = true
	fn := p.cancelRoutine
	p.cancelRoutine = nil
	p.mu.Unlock()
	if fn == nil {
		return false
	}
	fn()
	return true
}

// Cancelled is Irp->Cancel.
func (p *IRP) Cancelled() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.cancelled }

// Reuse is IoReuseIrp: it makes an own IRP new, with s as its status. The
// completion routine must be set again. On an IRP that is in flight or was not
// made by AllocateIRP it does nothing (IRP-11).
func (p *IRP) Reuse(s ntstatus.Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !p.usable("reuses"):
		return
	case !p.allocated:
		p.misused("IRP-11", "reuses an IRP that was passed down")
		return
	}
	clear(p.stack)
	p.current = len(p.stack)
	p.cancelled, p.cancelRoutine, p.pendingReturned, p.socket = false, nil, false, nil
	p.status = IoStatus{Status: s}
}

// Free is IoFreeIrp. The IRP must not be used afterwards; WSK never frees one
// (IRP-03).
func (p *IRP) Free() {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !p.usable("frees"):
	case !p.allocated:
		p.misused("IRP-04", "frees an IRP that was passed down")
	default:
		p.trail.free(p)
		p.freed = true
	}
}

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
// runs at most once and only asks: whoever completes the IRP still does.
func (p *IRP) pend(cancel func()) {
	p.mu.Lock()
	p.stack[p.current].pending = true
	now := p.cancelled && cancel != nil
	if !now {
		p.cancelRoutine = cancel
	}
	p.mu.Unlock()
	if now {
		cancel()
	}
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
