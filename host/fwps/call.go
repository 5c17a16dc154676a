package fwps

import (
	"fmt"
	"sync/atomic"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// Rights is the rights member of FWPS_CLASSIFY_OUT.
type Rights uint32

// RightActionWrite means the action so far may still be changed (CO-CLS-06).
const RightActionWrite Rights = 1 // FWPS_RIGHT_ACTION_WRITE

// A Call is one question to a callout. It is valid during the call only, and is
// the classify handle of FwpsAcquireClassifyHandle0 (CH-01): having the Call is
// having acquired it, returning releases it.
type Call struct {
	In      *Incoming
	Filter  *fwpm.Filter
	Connect *ConnectRequest // newest version; nil except at CONNECT_REDIRECT
	Bind    *BindRequest    // newest version; nil except at BIND_REDIRECT
	// State and Hop are FwpsQueryConnectionRedirectState0 for this callout's
	// own handle; Hop holds the record and context it once gave.
	State  redirect.State
	Hop    *redirect.Hop
	Rights Rights // on entry (ARB-10)
	// RedirectHandle is the callout's own.
	RedirectHandle redirect.Handle
	// FlowContext is what the callout associated with the flow at this layer, else 0 (CO-CLS-04).
	FlowContext uint64

	d     *Decision
	flows *atomic.Int32
	holds *atomic.Int32
}

// singular notes that the answer is not for other connections.
func (c *Call) singular() {
	if c.d != nil {
		c.d.singular, c.d.acted = true, true
	}
}

func (c *Call) held() {
	if c.holds != nil {
		c.holds.Add(1)
	}
}

// ClassifyFlags are the flags of ApplyModifiedLayerData.
type ClassifyFlags uint32

// ReauthorizeIfModifiedByOthers runs the callout again when a later one changes
// the request before the classification completes (CH-05).
const ReauthorizeIfModifiedByOthers ClassifyFlags = 1 // FWPS_CLASSIFY_FLAG_REAUTHORIZE_IF_MODIFIED_BY_OTHERS

// acquired is the writable copy that a callout holds, and what it did with it
// during one question.
type acquired struct {
	held        bool // there is a copy that was not applied yet
	touched     bool // there was one
	reauthorize bool
	before      int // versions before the question
	connect     ConnectRequest
	bind        BindRequest
	// record and context are the memory that connect is lent for its blobs. What the
	// callout puts there instead is its own, and never written to.
	record, context []byte
}

// acquire marks the copy as held and does to the answer what the documentation
// says: block, without the right (CH-03, AMB-22).
func (c *Call) acquire(fits bool) error {
	switch {
	case !fits:
		return fmt.Errorf("%s has no writable layer data: %w", c.In.Layer, ntstatus.InvalidParameter) // CH-02
	case c.d.acq.held:
		return fmt.Errorf("the layer data is acquired already: %w", ntstatus.InvalidParameter) // AMB-30
	case c.Rights&RightActionWrite == 0:
		return fmt.Errorf("the request may not be changed: a heavier sublayer decided hard: %w", ntstatus.AccessDenied) // CH-15
	}
	a := &c.d.acq
	a.held, a.touched, c.d.acted = true, true, true
	c.d.verdict.Action, c.d.verdict.ClearActionRight = fwp.ActionBlock, true
	return nil
}

// AcquireConnectRequest is FwpsAcquireWritableLayerDataPointer0 at
// CONNECT_REDIRECT: a private copy of the newest version (CH-02). One
// ApplyModifiedLayerData must follow (CH-04). It sets the verdict to a hard
// block, which the callout overwrites; a verdict left so after the apply counts
// as not written.
func (c *Call) AcquireConnectRequest() (*ConnectRequest, error) {
	if err := c.acquire(c.Connect != nil); err != nil {
		return nil, err
	}
	a := &c.d.acq
	r := &a.connect
	r.Record, r.LocalRedirectContext = a.record, a.context
	r.copyFrom(c.d.Connect)
	a.record, a.context = r.Record, r.LocalRedirectContext
	r.Previous, r.Observer = c.d.Connect, nil
	return r, nil
}

// AcquireBindRequest is FwpsAcquireWritableLayerDataPointer0 at BIND_REDIRECT.
func (c *Call) AcquireBindRequest() (*BindRequest, error) {
	if err := c.acquire(c.Bind != nil); err != nil {
		return nil, err
	}
	r := &c.d.acq.bind
	*r = *c.d.Bind
	r.Previous = c.d.Bind
	return r, nil
}

// ApplyModifiedLayerData is FwpsApplyModifiedLayerData0 for the copy the call
// holds: if it changed something it becomes the newest version, and another copy
// can be acquired. Without one it does nothing (AMB-30); the engine notes it.
func (c *Call) ApplyModifiedLayerData(flags ClassifyFlags) {
	a := &c.d.acq
	if !a.held {
		c.d.misuse, c.d.acted = "AMB-30: ApplyModifiedLayerData without acquired layer data", true
		return
	}
	a.held = false
	a.reauthorize = a.reauthorize || flags&ReauthorizeIfModifiedByOthers != 0
	c.d.apply()
	c.Connect, c.Bind = c.d.Connect, c.d.Bind
}

// PendClassify is FwpsPendClassify0: the request is held until the result's
// Complete, whatever the callout answers meanwhile (CH-09, CH-10). At a layer
// that cannot wait it is STATUS_FWP_CANNOT_PEND.
func (c *Call) PendClassify() (*PendedClassify, error) {
	if !c.In.Layer.CanPendClassify() || c.d.pended != nil {
		return nil, fmt.Errorf("PendClassify at %s: %w", c.In.Layer, ntstatus.FWPCannotPend)
	}
	p := &PendedClassify{done: make(chan *Verdict, 1)}
	c.d.pended, c.d.acted = p, true
	c.held()
	return p, nil
}

// PendOperation is FwpsPendOperation0: the operation is held until Complete and
// then authorized again. The callout must answer ActionBlock with Absorb. A
// reauthorization cannot be pended (CH-14, SC-78).
func (c *Call) PendOperation() (*PendedOperation, error) {
	if !c.In.Layer.CanPendOperation() || c.In.Flags&fwp.FlagIsReauthorize != 0 || c.d.operation != nil {
		return nil, fmt.Errorf("PendOperation at %s: %w", c.In.Layer, ntstatus.FWPCannotPend)
	}
	p := &PendedOperation{done: make(chan struct{})}
	c.d.operation, c.d.acted = p, true
	c.held()
	return p, nil
}

// QuerySIOFormatRedirectRecords is FwpsQueryConnectionSioFormatRedirectRecords0:
// the bytes that SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS would give the proxy,
// before the redirect is applied, for a callout that pends (RED-SIO-01). n is
// their size, also when out is too small for them: then the status is
// STATUS_BUFFER_TOO_SMALL and out may be nil. Where a connection cannot be
// redirected it is STATUS_NOT_FOUND (RED-SIO-02).
func (c *Call) QuerySIOFormatRedirectRecords(out []byte) (n int, st ntstatus.Status) {
	if c.In.Pending == nil || c.RedirectHandle == 0 {
		return 0, ntstatus.NotFound
	}
	c.singular()
	b, err := c.In.Pending.Format(c.RedirectHandle)
	switch {
	case err != nil:
		return 0, ntstatus.IntegerOverflow // more hops than the format holds
	case len(out) < len(b):
		return len(b), ntstatus.BufferTooSmall
	}
	return copy(out, b), ntstatus.Success
}

// FlowAssociateContext is FwpsFlowAssociateContext0 for the callout and the layer
// of the call: the callout finds context in FlowContext from then on. Errors are
// those of CO-FLW-01; where there is no flow it is ntstatus.InvalidParameter.
func (c *Call) FlowAssociateContext(context uint64, d FlowDeleter) error {
	c.singular()
	if c.In.Flow == nil {
		return fmt.Errorf("flow context at %s, which has no flow: %w", c.In.Layer, ntstatus.InvalidParameter) // CO-FLW-04
	}
	return c.In.Flow.Associate(c.In.Layer, c.Filter.Callout, context, d, c.flows)
}
