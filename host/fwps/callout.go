package fwps

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// A Callout answers calls. It is safe for concurrent use. An error is a hard
// block with the error's text as its reason. v arrives with ActionContinue, which
// is what a callout that writes nothing leaves (CO-CLS-11).
type Callout interface {
	Classify(ctx context.Context, c *Call, v *Verdict) error
}

// CalloutFunc makes a Callout of a function.
type CalloutFunc func(ctx context.Context, c *Call, v *Verdict) error

// Classify calls f.
func (f CalloutFunc) Classify(ctx context.Context, c *Call, v *Verdict) error { return f(ctx, c, v) }

// NotifyType is FWPS_CALLOUT_NOTIFY_TYPE.
type NotifyType int

// What a Notifier hears of (CO-NOT-01).
const (
	NotifyAddFilter           NotifyType = 0 // FWPS_CALLOUT_NOTIFY_ADD_FILTER
	NotifyDeleteFilter        NotifyType = 1 // FWPS_CALLOUT_NOTIFY_DELETE_FILTER
	NotifyAddFilterPostCommit NotifyType = 2 // FWPS_CALLOUT_NOTIFY_ADD_FILTER_POST_COMMIT
)

func (t NotifyType) String() string {
	switch t {
	case NotifyAddFilter:
		return "add-filter"
	case NotifyDeleteFilter:
		return "delete-filter"
	case NotifyAddFilterPostCommit:
		return "add-filter-post-commit"
	}
	return fmt.Sprintf("NotifyType(%d)", int(t))
}

// A Notifier is a callout with a notifyFn. Without it nothing is told of filters.
//
// An error to NotifyAddFilter keeps the filter out of the policy (CO-NOT-02);
// the results of the others are ignored. For NotifyAddFilter the callout may set
// f.Context; nothing else may be changed, and f is not to be kept.
type Notifier interface {
	Notify(t NotifyType, f *fwpm.Filter) error
}

// A CommitNotifier is a Notifier with FWP_CALLOUT_FLAG_ENABLE_COMMIT_ADD_NOTIFY:
// it hears of NotifyAddFilterPostCommit too.
type CommitNotifier interface {
	Notifier
	EnableCommitAddNotify()
}

// A FlowDeleter is a callout with a flowDeleteFn. Without it the callout cannot
// have flow contexts (CO-FLW-01).
type FlowDeleter interface {
	// FlowDelete hears of each context once, when its flow ends or it is removed. A panic is
	// ignored.
	FlowDelete(layer fwpm.LayerID, callout fwpm.CalloutID, context uint64)
}

// A Reclassifier is a callout with FWP_CALLOUT_FLAG_ALLOW_RECLASSIFY: binds and
// listens that it was asked about are asked about again, with IS_RECLASSIFY, when
// the policy of their layer changes. A block then refuses the use of the socket.
type Reclassifier interface{ AllowReclassify() }

// A Verdict is a callout's answer: FWPS_CLASSIFY_OUT.
type Verdict struct {
	Action           fwp.Action // ActionPermit, ActionBlock, ActionContinue, ActionNone
	ClearActionRight bool       // the decision is hard (CO-CLS-07)
	Absorb           bool       // with ActionBlock: no audit, no event (CO-CLS-08)

	// Redirect means the callout changed the request; To and TargetPID are the
	// new destination. It is acquire, modify and apply of writable layer data in
	// one. NoHandle leaves localRedirectHandle unset, as for a proxy on another
	// host (CR-04). At BIND_REDIRECT To is the new local address.
	Redirect  bool
	To        netip.AddrPort
	TargetPID uint32
	NoHandle  bool
	// ReauthorizeIfModifiedByOthers asks the callout again when a later one
	// changes the request (CH-05).
	ReauthorizeIfModifiedByOthers bool
	// Record and Context arrive empty, with memory of the engine's to append to. What
	// a callout puts there instead stays its own and is read only.
	Record, Context []byte

	Reason string // optional: why, for people

	// Observer hears of a redirect when the connection was sent there. Optional.
	Observer Observer

	// Cacheable promises that equal inputs get the same answer until Since is over:
	// the callout need not be asked again. Inputs are the filter, the rights, the
	// newest version of the request, and all of Incoming but what tells one
	// connection from the next: EndpointID, ParentEndpointID, Flow and Pending.
	// Neither may the answer depend on the time, on chance or on what the callout
	// remembers, nor be there for its effects. The engine does not take the promise
	// where the callout was shown records or a flow context, or pended.
	Cacheable bool
	// Since is optional: the callout's Epoch, before it began to answer.
	Since Moment

	// Hint is no part of the answer and stays: a callout that has several of
	// something, such as instances of a guest, notes which one it used last.
	Hint uint32
}

// Reset makes v the answer of a callout that says nothing, and keeps its buffers.
//
// Here and in what else every classification fills, the members are set one by
// one: a literal is made elsewhere and then copied, which takes longer than all
// that it is for.
func (v *Verdict) Reset() {
	v.Action, v.ClearActionRight, v.Absorb = fwp.ActionContinue, false, false
	v.Redirect, v.To, v.TargetPID, v.NoHandle = false, netip.AddrPort{}, 0, false
	v.ReauthorizeIfModifiedByOthers, v.Reason = false, ""
	v.Record = v.Record[:0]
	v.Context = v.Context[:0]
	v.Observer = nil
	v.Cacheable, v.Since = false, Moment{}
}
