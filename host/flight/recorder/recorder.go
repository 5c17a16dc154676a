// Package recorder writes down what a classifier decides about connections.
package recorder

import (
	"bytes"
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/calloutd/calloutd/host/flight"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/journal"
)

// Options configure a Recorder.
type Options struct {
	Classifier fwps.Classifier           // Required.
	Write      func(*flight.Entry) error // Required. It may be called by many goroutines at once.
	// Proxy names the policy's proxy that has an address. Optional.
	Proxy func(netip.AddrPort) string
	// OnError hears of the first error of Write. Optional.
	OnError func(error)
	// Now is the clock. Optional: time.Now.
	Now func() time.Time
}

// A Recorder is a Classifier that decides as another one and writes a flight entry
// for each connection: when AUTH_CONNECT or AUTH_RECV_ACCEPT has decided, or
// CONNECT_REDIRECT has failed. Callouts that keep journals have one.
//
// What never comes so far has no entry: binds and listens, and what the host
// refuses by itself. It is safe for concurrent use.
type Recorder struct {
	fwps.Classifier
	opts Options
	once sync.Once

	mu    sync.Mutex
	begun map[flow]*flight.Entry // what CONNECT_REDIRECT said
}

// A flow is a connection of an endpoint, of which datagrams can have several at once.
type flow struct {
	endpoint uint64
	original netip.AddrPort // a v4-mapped one as AUTH_CONNECT has it (ALE-LAY-16)
}

func flowOf(in *fwps.Incoming) flow {
	to := in.Remote
	if in.Flags&fwp.FlagIsConnectionRedirected != 0 {
		to = in.OriginalDestination
	}
	return flow{in.EndpointID, netip.AddrPortFrom(to.Addr().Unmap(), to.Port())}
}

// maxBegun bounds what waits for AUTH_CONNECT; some never gets there.
const maxBegun = 1 << 14

// New returns a Recorder.
func New(o Options) *Recorder {
	if o.Proxy == nil {
		o.Proxy = func(netip.AddrPort) string { return "" }
	}
	if o.OnError == nil {
		o.OnError = func(error) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Recorder{Classifier: o.Classifier, opts: o, begun: map[flow]*flight.Entry{}}
}

// Classify implements fwps.Classifier.
func (r *Recorder) Classify(ctx context.Context, in *fwps.Incoming, d *fwps.Decision) {
	layer := in.Layer.ForFamily(false)
	switch layer {
	case fwpm.LayerALEConnectRedirectV4, fwpm.LayerALEAuthConnectV4, fwpm.LayerALEAuthRecvAcceptV4:
	default:
		r.Classifier.Classify(ctx, in, d)
		return
	}
	var j journal.Journal
	r.Classifier.Classify(journal.With(ctx, &j), in, d)
	switch {
	case in.Flags&fwp.FlagIsReauthorize != 0: // A connection that there is already.
	case layer == fwpm.LayerALEConnectRedirectV4:
		r.redirect(in, d, j.Answers)
	case layer == fwpm.LayerALEAuthConnectV4:
		r.authorized(in, d, j.Answers)
	default:
		e := r.entry(in)
		e.Answers = j.Answers
		r.write(e, r.decided(in, d))
	}
}

// entry describes the connection of a classification.
func (r *Recorder) entry(in *fwps.Incoming) *flight.Entry {
	e := &flight.Entry{Time: r.opts.Now(), Protocol: in.Protocol, Inbound: in.Inbound, Program: in.AppID, Process: in.ProcessID, User: in.UserID,
		UserKnown: in.UserKnown, Groups: in.Groups, Local: in.Local, Remote: in.Remote, Host: in.Other[fwpm.ConditionPeerName].Text, Records: in.Records}
	if in.Flags&fwp.FlagIsConnectionRedirected != 0 {
		e.Remote = in.OriginalDestination
	}
	return e
}

// redirect is what CONNECT_REDIRECT said: it waits for AUTH_CONNECT, unless a
// callout failed, which is final.
func (r *Recorder) redirect(in *fwps.Incoming, d *fwps.Decision, answers []journal.Answer) {
	e := r.entry(in)
	e.Answers = answers
	if d.Action == fwp.ActionBlock && d.Faulted {
		r.write(e, r.decided(in, d))
		return
	}
	if d.Redirected() {
		e.Outcome = r.asked(in, d)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.begun {
		if len(r.begun) < maxBegun {
			break
		}
		delete(r.begun, id)
	}
	r.begun[flowOf(in)] = e
}

// asked is the redirect that a callout asked for.
func (r *Recorder) asked(in *fwps.Incoming, d *fwps.Decision) *flight.Outcome {
	o := &flight.Outcome{Action: "redirect", Layer: in.Layer.String(), Filter: uint64(d.Connect.ModifierFilterID), Callout: string(d.Connect.ModifierCallout),
		Context: bytes.Clone(d.Connect.LocalRedirectContext), Record: bytes.Clone(d.Connect.Record)}
	for i := range d.Steps {
		if s := &d.Steps[i]; s.Filter == d.Connect.ModifierFilterID && s.Redirected {
			o.FilterName, o.Rule, o.Why = s.Name, s.Rule, s.Why
		}
	}
	return o
}

// authorized is what AUTH_CONNECT said. A connection that goes to another host is
// asked about twice (ALE-LAY-14): the second time it is final.
func (r *Recorder) authorized(in *fwps.Incoming, d *fwps.Decision, answers []journal.Answer) {
	id := flowOf(in)
	r.mu.Lock()
	e := r.begun[id]
	first := in.Flags&fwp.FlagIsHonoringPolicyAuthorize != 0 && d.Action == fwp.ActionPermit
	if e != nil && !first {
		delete(r.begun, id)
	}
	if e != nil {
		e.Answers = append(e.Answers, answers...)
	}
	r.mu.Unlock()
	if e == nil { // Nothing could redirect it.
		e = r.entry(in)
		e.Answers = answers
	}
	asked := e.Outcome
	switch {
	case first:
	case d.Action == fwp.ActionPermit && in.Flags&fwp.FlagIsConnectionRedirected != 0 && asked != nil:
		asked.Destination = r.place(in.Remote)
		r.write(e, asked)
	default:
		r.write(e, r.decided(in, d))
	}
}

// decided is a permit or a block.
func (r *Recorder) decided(in *fwps.Incoming, d *fwps.Decision) *flight.Outcome {
	o := &flight.Outcome{Action: "permit", Layer: in.Layer.String()}
	if s := d.Decider(); s != nil {
		o.Filter, o.FilterName, o.Callout, o.Rule, o.Why = uint64(s.Filter), s.Name, string(s.Callout), s.Rule, s.Why
	} else {
		o.Rule = "ARB-09"
	}
	switch {
	case d.Action == fwp.ActionBlock:
		o.Action = "block"
		if o.Why == "" {
			o.Why = "the policy blocks it"
		}
	case in.Inbound:
		o.Destination = r.place(in.Local)
	default:
		o.Destination = r.place(in.Remote)
	}
	return o
}

func (r *Recorder) place(a netip.AddrPort) string {
	if id := r.opts.Proxy(a); id != "" {
		return "proxy:" + id
	}
	return a.String()
}

func (r *Recorder) write(e *flight.Entry, o *flight.Outcome) {
	e.Outcome = o
	if err := r.opts.Write(e); err != nil {
		r.once.Do(func() { r.opts.OnError(err) })
	}
}
