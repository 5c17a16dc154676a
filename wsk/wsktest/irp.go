package wsktest

import (
	"fmt"
	"strings"
	"sync"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// An irp is an IRP and what its routine and its owner saw.
type irp struct {
	irp  *wsk.IRP
	down bool // passed down to the client by a driver above
	on   wsk.Invoke
	// answer is what the routine returns; none means there is no routine.
	answer ntstatus.Status
	none   bool

	mu          sync.Mutex
	ran         int
	told        int
	context     bool // the routine got its own context
	pended      bool // PendingReturned in the routine
	ownerPended bool // PendingReturned when the owner was told
	routineSaw  wsk.IoStatus
	ownerSaw    wsk.IoStatus
	socket      *wsk.Socket
	done        chan struct{} // closed when the routine keeps the IRP or the owner is told
	doneClosed  bool
	freeInside  bool // the routine frees it
	unmarked    bool // the routine does not mark what was pended
}

func newIRP(down bool) *irp {
	return &irp{down: down, on: wsk.InvokeAlways, answer: ntstatus.MoreProcessingRequired, done: make(chan struct{})}
}

func (i *irp) build(stack int) {
	if i.down {
		i.irp = wsk.BuildIRP(stack, i.complete)
	} else {
		i.irp = wsk.AllocateIRP(stack)
	}
}

func (i *irp) complete(p *wsk.IRP) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.told++
	i.ownerPended = p.PendingReturned()
	i.ownerSaw, i.socket = p.IoStatus(), p.Socket()
	i.finish()
}

func (i *irp) finish() {
	if !i.doneClosed {
		i.doneClosed = true
		close(i.done)
	}
}

func (i *irp) routine(p *wsk.IRP, context any) ntstatus.Status {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ran++
	i.context = context == any(i)
	i.pended = p.PendingReturned()
	i.routineSaw, i.socket = p.IoStatus(), p.Socket()
	if i.down && i.pended && !i.unmarked && i.answer != ntstatus.MoreProcessingRequired {
		p.MarkPending() // IRP-05
	}
	if i.answer == ntstatus.MoreProcessingRequired {
		if i.freeInside {
			p.Free()
		}
		i.finish()
	}
	return i.answer
}

// again makes the IRP ready for one more call.
func (i *irp) again() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.doneClosed && !i.freeInside {
		i.done, i.doneClosed = make(chan struct{}), false
	}
}

// call gives the IRP to a call of WSK, through the client's dispatch routine if
// it was passed down.
func (i *irp) call(do func(*wsk.IRP) ntstatus.Status) ntstatus.Status {
	if i.irp == nil {
		return do(nil)
	}
	set := func(p *wsk.IRP) ntstatus.Status {
		if !i.none {
			p.SetCompletionRoutine(i.routine, i, i.on)
		}
		return do(p)
	}
	if i.down {
		return i.irp.CallDriver(set)
	}
	return set(i.irp)
}

// status is how the request ended, as the last one saw who heard of it.
func (i *irp) status() wsk.IoStatus {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.told > 0 {
		return i.ownerSaw
	}
	return i.routineSaw
}

func parseInvoke(s string) (on wsk.Invoke, err error) {
	for _, f := range strings.Split(s, ",") {
		switch f {
		case "success":
			on |= wsk.InvokeOnSuccess
		case "error":
			on |= wsk.InvokeOnError
		case "cancel":
			on |= wsk.InvokeOnCancel
		default:
			return 0, fmt.Errorf("%q is none of success, error, cancel", f)
		}
	}
	return on, nil
}

// A pending is a call that was made.
type pending struct {
	irp      *irp
	inline   ntstatus.Status // what the call returned
	out      []byte          // its output buffer
	fill     []byte          // what the buffer had before
	returned int             // *OutputSizeReturned
	inv      *invocation
}

func (p *pending) wait() error {
	if p.irp.irp == nil {
		return nil
	}
	return wait("the IRP", p.irp.done)
}

func (p *pending) status() wsk.IoStatus {
	if p.irp.irp == nil {
		return wsk.IoStatus{Status: p.inline, Information: p.returned}
	}
	return p.irp.status()
}

// start makes a call with an own IRP, or the given one.
func (w *world) start(i *irp, do func(*wsk.IRP) ntstatus.Status) *pending {
	if i == nil {
		i = newIRP(false)
		i.build(1)
	}
	i.again()
	p := &pending{irp: i}
	p.inline = i.call(do)
	return p
}

// check is what holds for every call with an IRP, whatever it was.
func (p *pending) check() error {
	if p.irp.irp == nil {
		return nil
	}
	st := p.status()
	switch {
	case p.inline != ntstatus.Pending && p.inline != st.Status:
		return fmt.Errorf("WSK-RET-05: the call returned %v, the IRP has %v", p.inline, st.Status)
	case st.Status == ntstatus.Pending:
		return fmt.Errorf("WSK-RET-02: an IRP was completed with STATUS_PENDING")
	case !st.Status.Ok() && st.Information != 0 && st.Status != ntstatus.BufferTooSmall && st.Status != ntstatus.BufferOverflow:
		return fmt.Errorf("IRP-15: %v with Information %d", st.Status, st.Information)
	}
	p.irp.mu.Lock()
	defer p.irp.mu.Unlock()
	if p.irp.ran > 0 && !p.irp.context {
		return fmt.Errorf("IRP-09: the completion routine got another context than its own")
	}
	return nil
}
