package fwps

import (
	"context"
	"slices"
	"sync/atomic"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/redirect"
)

// A Step is one filter's part in a decision.
type Step struct {
	Layer      fwpm.LayerID
	Sublayer   fwpm.SublayerID
	Filter     fwpm.FilterID
	Name       string // the filter's
	Callout    fwpm.CalloutID
	Action     fwp.Action
	Redirected bool // the callout made a new version of the request
	Hard       bool
	Veto       bool // a callout's block over a hard permit (ARB-06)
	Absorb     bool
	Reauth     bool   // the callout was asked with IS_REAUTHORIZE
	Rule       string // the rule that made it so, for example "ARB-06"
	Why        string
}

// A Decision is the outcome of a classification, owned and used again by the
// caller. After Classify its Action is ActionPermit or ActionBlock.
type Decision struct {
	Action fwp.Action
	Rights Rights // RightActionWrite: soft
	// Steps holds every filter that was asked, in order. Deciding is the index
	// of the step that decided, -1 when the layer's default did (ARB-09).
	Steps    []Step
	Deciding int
	// Connect and Bind are the newest version of the request, nil except at
	// CONNECT_REDIRECT and BIND_REDIRECT.
	Connect *ConnectRequest
	Bind    *BindRequest
	Faulted bool // a callout failed: its answer was a block
	Vetoed  bool // counted in FWPM_LAYER_STATISTICS.classifyVetoCount (ARB-06)
	// Absorbed is a block that nobody is told of (EVT-04).
	Absorbed bool
	// Reclassify says that a Reclassifier was asked.
	Reclassify bool
	// Cached says that nobody was asked: inputs that were equal got this before.
	Cached bool

	connects [MaxVersions]ConnectRequest
	binds    [MaxVersions]BindRequest
	nversion int
	call     Call
	verdict  Verdict
	// record and context are the memory that verdict is lent for its blobs. What the
	// callout puts there instead is its own, and never written to.
	record, context []byte

	acq       acquired
	pended    *PendedClassify
	operation *PendedOperation
	misuse    string
	singular  bool // the answer to the last question is of its connection alone
	acted     bool // the callout of the last question did more than answer
	reauth    Incoming
}

// PushStep adds a step, which the classifier fills in whole: what it is on arrival is
// left over from another decision.
func (d *Decision) PushStep() *Step {
	n := len(d.Steps)
	if n == cap(d.Steps) {
		d.Steps = append(d.Steps, Step{})
	}
	d.Steps = d.Steps[:n+1]
	return &d.Steps[n]
}

// Reset empties d for a classification of in and keeps its buffers. Classify
// does it first.
func (d *Decision) Reset(in *Incoming) {
	d.Action, d.Rights, d.Deciding = fwp.ActionPermit, RightActionWrite, -1 // ARB-09
	d.Steps = d.Steps[:0]
	d.Faulted, d.Vetoed, d.Absorbed, d.Reclassify, d.Cached = false, false, false, false, false
	switch {
	case in.Layer.IsConnectRedirect(): // Of the original nothing else is ever written.
		r := &d.connects[0]
		r.Local = in.Local
		r.Remote = in.Remote
		d.Connect, d.Bind, d.nversion = r, nil, 1
	case in.Layer.IsBindRedirect():
		d.Connect, d.Bind, d.nversion = nil, nil, 0
		d.PushBind().Local = in.Local
	default:
		d.Connect, d.Bind, d.nversion = nil, nil, 0
	}
}

// Question lends the classifier a call and a verdict that live in d, ready for
// one callout. It counts in holds what the callout pends, until the classifier counts
// it down (AMB-44), and in flows the callout's flow contexts (CO-REG-05).
func (d *Decision) Question(in *Incoming, f *fwpm.Filter, holds, flows *atomic.Int32) (*Call, *Verdict) {
	if d.acted {
		d.acq.held, d.acq.touched, d.acq.reauthorize = false, false, false
		d.pended, d.operation, d.misuse, d.singular, d.acted = nil, nil, "", false, false
	}
	d.acq.before = d.nversion
	c := &d.call
	c.In, c.Filter, c.Connect, c.Bind, c.Rights, c.d = in, f, d.Connect, d.Bind, d.Rights, d
	c.State, c.Hop, c.RedirectHandle, c.FlowContext, c.flows, c.holds = 0, nil, 0, 0, flows, holds
	v := &d.verdict
	if len(v.Record) > cap(d.record) || len(v.Context) > cap(d.context) {
		d.grow()
	}
	v.Record, v.Context = d.record, d.context
	v.Reset()
	return c, v
}

// grow makes room for what the last answer had, however the callout came to it: who
// appends as much again allocates nothing.
func (d *Decision) grow() {
	d.record = slices.Grow(d.record, min(len(d.verdict.Record), redirect.MaxBlob))
	d.context = slices.Grow(d.context, min(len(d.verdict.Context), redirect.MaxBlob))
}

// Reauthorize returns a copy of in with IS_REAUTHORIZE, which lives in d.
func (d *Decision) Reauthorize(in *Incoming, why fwp.ReauthorizeReason) *Incoming {
	if in != &d.reauth {
		d.reauth = *in
	}
	d.reauth.Flags |= fwp.FlagIsReauthorize
	d.reauth.ReauthorizeReason |= why
	return &d.reauth
}

// Acted reports whether the callout of the last question did more than answer: if not
// it pended, applied and misused nothing.
func (d *Decision) Acted() bool { return d.acted }

// Pended is what the callout of the last question held, nil if nothing.
func (d *Decision) Pended() (*PendedClassify, *PendedOperation) { return d.pended, d.operation }

// Singular reports whether the callout of the last question did something that
// another connection cannot share: it pended, read or promised records, has a context
// in the flow or observes it.
func (d *Decision) Singular() bool {
	return d.singular || d.pended != nil || d.operation != nil || d.call.FlowContext != 0 || d.call.Hop != nil || d.call.State != redirect.NotRedirected
}

// Misuse is the rule that the callout of the last question broke, empty if none.
func (d *Decision) Misuse() string { return d.misuse }

// Decider returns the step that decided, nil when the layer's default did.
func (d *Decision) Decider() *Step {
	if d.Deciding < 0 || d.Deciding >= len(d.Steps) {
		return nil
	}
	return &d.Steps[d.Deciding]
}

// A Classifier decides one layer. Classify is total: whatever goes wrong is a
// block with the reason among the steps, so that no caller can permit by
// forgetting to look at an error. It waits only where a callout pends.
type Classifier interface {
	Classify(ctx context.Context, in *Incoming, d *Decision)
	// Generation changes when the filters of a layer do, or what they refer to: a
	// flow that was authorized there before is to be authorized again (ALE-LAY-12).
	Generation(fwpm.LayerID) uint64
	// ReauthorizeReason says what changed at a layer since it had a Generation.
	ReauthorizeReason(l fwpm.LayerID, since uint64) fwp.ReauthorizeReason
	// TestsLocal reports whether filters of a layer test where connections come from,
	// FWPM_CONDITION_IP_LOCAL_ADDRESS and its type: else nobody has to find that out.
	TestsLocal(fwpm.LayerID) bool
}
