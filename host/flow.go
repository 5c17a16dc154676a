package host

import (
	"fmt"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// FlowAssociateContext is FwpsFlowAssociateContext0: the callout finds context in
// Call.FlowContext whenever it is asked about the flow at that layer. A callout
// that is being asked has Call.FlowAssociateContext. It is ntstatus.InvalidParameter for a context of 0 and a callout that is no
// fwps.FlowDeleter, and ntstatus.ObjectNameExists for a second one (CO-FLW-01).
func (e *Engine) FlowAssociateContext(f *fwps.Flow, layer fwpm.LayerID, id fwpm.CalloutID, context uint64) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.callouts[id]
	if r == nil || r.callout == nil {
		return fmt.Errorf("flow context of callout %q: %w", id, ntstatus.FWPCalloutNotFound)
	}
	if f == nil || !layer.Valid() {
		return fmt.Errorf("flow context of callout %q at %s: no flow or no such layer: %w", id, layer, ntstatus.InvalidParameter)
	}
	d, _ := r.callout.(fwps.FlowDeleter) // Associate refuses a callout that is none.
	return f.Associate(layer, id, context, d, r.slot.Flows())
}

// FlowRemoveContext is FwpsFlowRemoveContext0. pending is STATUS_PENDING: the
// context is deleted after the classification that is under way (CO-FLW-02).
func (e *Engine) FlowRemoveContext(f *fwps.Flow, layer fwpm.LayerID, id fwpm.CalloutID) (pending bool, err error) {
	if f == nil {
		return false, fmt.Errorf("flow context of callout %q: no flow: %w", id, ntstatus.InvalidParameter)
	}
	return f.Remove(layer, id)
}

// FlowAbort is FwpsFlowAbort0: it ends the flow's connection (CO-FLW-03).
func (e *Engine) FlowAbort(f *fwps.Flow) {
	if f != nil {
		f.Abort()
	}
}
