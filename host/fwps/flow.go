package fwps

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A Flow is an ALE flow, and holds what callouts associated with it. The zero
// Flow is ready.
type Flow struct {
	ID uint64 // FWPS_METADATA_FIELD_FLOW_HANDLE

	contexts atomic.Pointer[[]flowContext] // copied on write
	mu       sync.Mutex                    // writers, and busy
	busy     int                           // classifications under way
	removed  []flowContext                 // to be deleted when they end
	ended    bool
	shown    atomic.Bool // to a callout, which may keep it

	settled   bool // established, and its observers told; under mu
	observers []observer
	first     [1]observer // the memory of observers
	observed  atomic.Bool // there are some

	abort   func()
	aborted atomic.Bool
}

type flowContext struct {
	layer   fwpm.LayerID
	callout fwpm.CalloutID
	value   uint64
	owner   FlowDeleter
	count   *atomic.Int32 // how many the callout has; nil: nobody counts
}

// OnAbort gives the function that ends the flow's connection. It is called at once
// for a flow that was aborted before, as a callout may when the flow is established.
func (f *Flow) OnAbort(abort func()) {
	f.mu.Lock()
	f.abort = abort
	aborted := f.aborted.Load()
	f.mu.Unlock()
	if aborted {
		abort()
	}
}

// Context is what the callout associated with the flow at a layer, 0 if nothing.
func (f *Flow) Context(layer fwpm.LayerID, callout fwpm.CalloutID) uint64 {
	list := f.contexts.Load()
	if list == nil {
		return 0
	}
	for i := range *list {
		if c := &(*list)[i]; c.layer == layer && c.callout == callout {
			return c.value
		}
	}
	return 0
}

// Enter is Context for a classification in which the callout takes part: unless it
// is 0, what is removed until Leave is deleted after that.
func (f *Flow) Enter(layer fwpm.LayerID, callout fwpm.CalloutID) uint64 {
	f.shown.Store(true)
	if f.Context(layer, callout) == 0 { // Without the lock: most flows have none.
		return 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	context := f.Context(layer, callout)
	if context != 0 {
		f.busy++
	}
	return context
}

// Associated reports whether the flow has contexts.
func (f *Flow) Associated() bool { return len(f.list()) > 0 }

// Shown reports whether a callout has seen the flow: it may have kept it.
func (f *Flow) Shown() bool { return f.shown.Load() }

// Leave ends what Enter began.
func (f *Flow) Leave() {
	f.mu.Lock()
	f.busy--
	var due []flowContext
	if f.busy == 0 {
		due, f.removed = f.removed, nil
	}
	f.mu.Unlock()
	tell(due)
}

func tell(cs []flowContext) {
	for i := range cs {
		cs[i].tell()
	}
}

// tell ignores a panic, as of any notification: the contexts of other callouts are due, too.
func (c *flowContext) tell() {
	defer func() { _ = recover() }()
	if c.count != nil {
		defer c.count.Add(-1) // After it, so that unregistering waits for it.
	}
	c.owner.FlowDelete(c.layer, c.callout, c.value)
}

// Associate is FwpsFlowAssociateContext0 (CO-FLW-01): owner hears of the context
// once, when it goes. count is how many the callout has. It is the engine's;
// callouts have Call.FlowAssociateContext.
func (f *Flow) Associate(layer fwpm.LayerID, callout fwpm.CalloutID, context uint64, owner FlowDeleter, count *atomic.Int32) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case context == 0 || owner == nil || f.ended:
		return fmt.Errorf("flow context %d of callout %q: 0, no flowDeleteFn, or the flow has ended: %w", context, callout, ntstatus.InvalidParameter)
	case f.Context(layer, callout) != 0:
		return fmt.Errorf("flow context of callout %q: %w", callout, ntstatus.ObjectNameExists)
	}
	if count != nil {
		count.Add(1)
	}
	f.store(append(f.list(), flowContext{layer, callout, context, owner, count}))
	return nil
}

func (f *Flow) list() []flowContext {
	if l := f.contexts.Load(); l != nil {
		return (*l)[:len(*l):len(*l)]
	}
	return nil
}

func (f *Flow) store(l []flowContext) { f.contexts.Store(&l) }

// Remove is FwpsFlowRemoveContext0 (CO-FLW-02): pending says that the context is
// deleted after the classification that is under way.
func (f *Flow) Remove(layer fwpm.LayerID, callout fwpm.CalloutID) (pending bool, err error) {
	f.mu.Lock()
	var keep, gone []flowContext
	for _, c := range f.list() {
		if c.layer == layer && c.callout == callout {
			gone = append(gone, c)
		} else {
			keep = append(keep, c)
		}
	}
	f.store(keep)
	if f.busy > 0 {
		f.removed, pending = append(f.removed, gone...), len(gone) > 0
	}
	f.mu.Unlock()
	if len(gone) == 0 {
		return false, fmt.Errorf("flow context of callout %q: %w", callout, ntstatus.Unsuccessful)
	}
	if !pending {
		tell(gone)
	}
	return pending, nil
}

// End is the end of the flow: every context goes (CO-FLW-03).
func (f *Flow) End() {
	f.mu.Lock()
	gone := f.list()
	f.ended = true
	if gone != nil {
		f.store(nil)
	}
	if f.busy > 0 {
		f.removed, gone = append(f.removed, gone...), nil
	}
	f.mu.Unlock()
	tell(gone)
}

// Aborted reports whether a callout aborted the flow, for who has no function that ends
// its connection later.
func (f *Flow) Aborted() bool { return f.aborted.Load() }

// Abort is FwpsFlowAbort0: it ends the flow's connection.
func (f *Flow) Abort() {
	f.mu.Lock()
	abort := f.abort
	f.aborted.Store(true)
	f.mu.Unlock()
	if abort != nil {
		abort()
	}
}
