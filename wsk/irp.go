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
	waited    bool       // its maker waits for it: IRP_SYNCHRONOUS_API
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

// SetSynchronous sets IRP_SYNCHRONOUS_API: who makes the call waits for it, and so
// the call may do its work, and block, before it returns (IoIsOperationSynchronous).
// What it returns and how the IRP ends stay the same. Another goroutine can cancel it.
func (p *IRP) SetSynchronous() { p.mu.Lock(); defer p.mu.Unlock(); p.waited = true }

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
	p.cancelled, p.cancelRoutine, p.pendingReturned, p.socket, p.waited = false, nil, false, nil, false
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
