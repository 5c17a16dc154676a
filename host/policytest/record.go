package policytest

import (
	"bytes"
	"context"
	"net/netip"
	"slices"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// A World is a policy that is live: what cases run against. All of it may be used
// by many goroutines at once.
type World struct {
	Policy     *policyfile.File
	Classifier fwps.Classifier
	Proxies    map[string]netip.AddrPort
	Handles    map[fwpm.CalloutID]redirect.Handle
	// Configure tries a configuration with its callout, and returns why that refuses it,
	// empty if it takes it. A callout that does neither is an error.
	// Optional: refusals cannot be tested without it.
	Configure func(context.Context, *Refusal) (why string, err error)
	// NewTrace makes what writes down one connection.
	NewTrace func() Trace
}

// A Trace writes down what happens to connections, for people.
type Trace interface {
	// Decision is a layer that was asked.
	Decision(*fwps.Incoming, *fwps.Decision)
	// Redirect is what became of a callout's redirect.
	Redirect(ale.RedirectEvent)
	// Blocked is how a connection ended, after the decisions that led to it.
	Blocked(*ale.BlockedError)
	// String is all of it.
	String() string
}

// A Classification is a layer that was asked, kept.
type Classification struct {
	In       fwps.Incoming
	Action   fwp.Action
	Steps    []fwps.Step
	Deciding int // index of the step that decided, -1: the layer's default
}

// A Recorder takes connections through the layers and keeps what they decide. It
// serves one goroutine.
type Recorder struct {
	fwps.Classifier
	Enforcer *ale.Enforcer
	Asked    []Classification
	changes  uint64 // of the policy, as far as connections are told
	events   []ale.RedirectEvent
	context  []byte
	record   []byte
	trace    Trace
	written  string
}

// Record begins to write down what w decides.
func (w *World) Record() *Recorder {
	r := &Recorder{Classifier: w.Classifier, trace: w.NewTrace()}
	r.Enforcer = ale.New(ale.Options{Classifier: r, Store: memstore.New(0), OnRedirect: r.redirect})
	return r
}

// Classify implements fwps.Classifier.
func (r *Recorder) Classify(ctx context.Context, in *fwps.Incoming, d *fwps.Decision) {
	r.Classifier.Classify(ctx, in, d)
	c := Classification{In: *in, Action: d.Action, Steps: slices.Clone(d.Steps), Deciding: d.Deciding}
	c.In.Pending, c.In.Flow = nil, nil // They end with the connection.
	r.Asked = append(r.Asked, c)
	if d.Redirected() && d.Connect != nil {
		r.context, r.record = bytes.Clone(d.Connect.LocalRedirectContext), bytes.Clone(d.Connect.Record)
	}
	r.trace.Decision(in, d)
}

// Generation implements fwps.Classifier.
func (r *Recorder) Generation(l fwpm.LayerID) uint64 { return r.Classifier.Generation(l) + r.changes }

// ReauthorizeReason implements fwps.Classifier.
func (r *Recorder) ReauthorizeReason(fwpm.LayerID, uint64) fwp.ReauthorizeReason {
	return fwp.ReasonPolicyChange
}

// reauthorize asks about a connection again as after a change of the policy.
func (r *Recorder) reauthorize(ctx context.Context, f *ale.Flow) error {
	r.changes++
	return f.Reauthorize(ctx)
}

func (r *Recorder) redirect(ev ale.RedirectEvent) {
	r.events = append(r.events, ev)
	r.trace.Redirect(ev)
}

// next forgets what belongs to the connection before.
func (r *Recorder) next() (from int) {
	r.events, r.context, r.record = nil, nil, nil
	return len(r.Asked)
}
