// Package fwps holds what passes through a classification: the FWPS_ names of
// fwpstypes.h and fwpsk.h.
//
// Callers own every value and use it again: Incoming, Call, Verdict and Decision
// are filled in place, so that a classification allocates nothing.
package fwps

import (
	"context"
	"net/netip"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/redirect"
)

// Rights is the rights member of FWPS_CLASSIFY_OUT.
type Rights uint32

// RightActionWrite means the action so far may still be changed (CO-CLS-06).
const RightActionWrite Rights = 1 // FWPS_RIGHT_ACTION_WRITE

// IP protocols that the layers see.
const (
	ProtocolTCP uint8 = 6
	ProtocolUDP uint8 = 17
)

// Incoming is FWPS_INCOMING_VALUES with FWPS_INCOMING_METADATA_VALUES: what is
// known about an operation when a layer is asked. A zero address or empty text
// is FWP_EMPTY. Nobody modifies it during a classification.
type Incoming struct {
	Layer         fwpm.LayerID
	Protocol      uint8
	Inbound       bool // FWPM_CONDITION_DIRECTION
	Local, Remote netip.AddrPort
	Flags         fwp.ConditionFlags
	AppID         string // ALE_APP_ID: the path of the program
	OriginalAppID string // ALE_ORIGINAL_APP_ID (ALE-FLD-05)
	UserID        uint32 // ALE_USER_ID: the numeric user
	UserKnown     bool   // whether UserID is known; zero is root
	CompartmentID uint32
	ReauthReason  uint32

	ProcessID  uint32 // FWPS_METADATA_FIELD_PROCESS_ID
	EndpointID uint64 // FWPS_METADATA_FIELD_TRANSPORT_ENDPOINT_HANDLE

	// Records is the REDIRECT_RECORD_HANDLE: set on the socket by its owner.
	Records redirect.Records
	// OriginalDestination and LocalRedirectTargetPID are present when Flags
	// has FlagIsConnectionRedirected (ALE-META-03).
	OriginalDestination    netip.AddrPort
	LocalRedirectTargetPID uint32
}

// A ConnectRequest is FWPS_CONNECT_REQUEST0: one version of where a connection
// goes. Changing it makes a new version that points to the one it replaced.
type ConnectRequest struct {
	Remote                 netip.AddrPort
	LocalRedirectTargetPID uint32
	LocalRedirectHandle    redirect.Handle
	// Record and LocalRedirectContext are buffers of the Decision: copy what
	// must outlive it.
	Record, LocalRedirectContext []byte
	ModifierFilterID             fwpm.FilterID
	ModifierCallout              fwpm.CalloutID
	Previous                     *ConnectRequest // nil: never modified (CH-08)
}

// MaxVersions bounds the versions of one request, the original included (AMB-29).
const MaxVersions = 8

// A Call is one question to a callout. It is valid during the call only.
type Call struct {
	In      *Incoming
	Filter  *fwpm.Filter
	Connect *ConnectRequest // newest version; nil except at CONNECT_REDIRECT
	// State and Hop are FwpsQueryConnectionRedirectState0 for this callout's
	// own handle; Hop holds the record and context it once gave.
	State  redirect.State
	Hop    *redirect.Hop
	Rights Rights // on entry (ARB-10)
	// RedirectHandle is the callout's own.
	RedirectHandle redirect.Handle
}

// A Verdict is a callout's answer. The zero Verdict has no valid action and is
// an error, never a permit.
type Verdict struct {
	Action           fwp.Action // ActionPermit, ActionBlock, ActionContinue
	ClearActionRight bool       // the decision is hard (CO-CLS-07)

	// Redirect means the callout changed the request; To and TargetPID are the
	// new destination. NoHandle leaves localRedirectHandle unset, as for a
	// proxy on another host (CR-04).
	Redirect  bool
	To        netip.AddrPort
	TargetPID uint32
	NoHandle  bool
	// Record and Context are appended to from length zero, so their memory is used again.
	Record, Context []byte

	Reason string // optional: why, for people
}

// Reset empties v and keeps its buffers.
func (v *Verdict) Reset() {
	*v = Verdict{Record: v.Record[:0], Context: v.Context[:0]}
}

// A Callout answers calls. It is safe for concurrent use. An error is a hard
// block with the error's text as its reason; v arrives reset.
type Callout interface {
	Classify(ctx context.Context, c *Call, v *Verdict) error
}

// CalloutFunc makes a Callout of a function.
type CalloutFunc func(ctx context.Context, c *Call, v *Verdict) error

// Classify calls f.
func (f CalloutFunc) Classify(ctx context.Context, c *Call, v *Verdict) error { return f(ctx, c, v) }

// A Step is one filter's part in a decision.
type Step struct {
	Layer    fwpm.LayerID
	Sublayer fwpm.SublayerID
	Filter   fwpm.FilterID
	Name     string // the filter's
	Callout  fwpm.CalloutID
	Action   fwp.Action
	Hard     bool
	Veto     bool   // a callout's block over a hard permit (ARB-06)
	Rule     string // the rule that made it so, for example "ARB-06"
	Why      string
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
	// Connect is the newest version of the request, nil except at CONNECT_REDIRECT.
	Connect *ConnectRequest
	// Faults are the callouts that failed: each was a block.
	Faulted bool

	versions [MaxVersions]ConnectRequest
	nversion int
	call     Call
	verdict  Verdict
}

// Reset empties d and keeps its buffers. Classify does it first.
func (d *Decision) Reset() {
	d.Action, d.Rights, d.Steps, d.Deciding, d.Connect, d.Faulted, d.nversion = 0, 0, d.Steps[:0], -1, nil, false, 0
}

// Scratch lends the classifier a call and a verdict that live in d.
func (d *Decision) Scratch() (*Call, *Verdict) { return &d.call, &d.verdict }

// PushVersion makes a new version of the connect request that points to the
// one it replaces. It returns nil when there are MaxVersions already.
func (d *Decision) PushVersion() *ConnectRequest {
	if d.nversion == MaxVersions {
		return nil
	}
	r := &d.versions[d.nversion]
	d.nversion++
	*r = ConnectRequest{Record: r.Record[:0], LocalRedirectContext: r.LocalRedirectContext[:0], Previous: d.Connect}
	d.Connect = r
	return r
}

// Redirected reports whether a callout changed the request.
func (d *Decision) Redirected() bool { return d.Connect != nil && d.Connect.Previous != nil }

// Decider returns the step that decided, nil when the layer's default did.
func (d *Decision) Decider() *Step {
	if d.Deciding < 0 || d.Deciding >= len(d.Steps) {
		return nil
	}
	return &d.Steps[d.Deciding]
}

// A Classifier decides one layer. Classify is total: whatever goes wrong is a
// block with the reason among the steps, so that no caller can permit by
// forgetting to look at an error.
type Classifier interface {
	Classify(ctx context.Context, in *Incoming, d *Decision)
}
