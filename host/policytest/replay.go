package policytest

import (
	"context"

	"github.com/calloutd/calloutd/host/flight"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/journal"
	"github.com/calloutd/calloutd/host/redirect"
)

// Incoming is the connection of an entry.
func (w *World) Incoming(e *flight.Entry) fwps.Incoming {
	in := fwps.Incoming{Protocol: e.Protocol, Inbound: e.Inbound, AppID: e.Program, ProcessID: e.Process, UserID: e.User, UserKnown: e.UserKnown,
		Groups: e.Groups, Local: e.Local, Remote: e.Remote}
	if e.Host != "" {
		in.Other = PeerNamed(e.Host)
	}
	for i, h := range e.Records {
		own := *h
		own.Handle = w.Handles[fwpm.CalloutID(h.Callout)]
		if own.Handle == 0 { // Another redirector's.
			own.Handle = 1<<63 | redirect.Handle(i)
		}
		in.Records = append(in.Records, &own)
	}
	return in
}

// told is a context in which callouts are told what they were told then.
func told(ctx context.Context, e *flight.Entry) context.Context {
	return journal.With(ctx, journal.Replay(e.Answers, e.Time, uint64(e.Time.UnixNano())))
}

// Replay decides an entry again.
func (w *World) Replay(ctx context.Context, r *Recorder, e *flight.Entry) (*flight.Outcome, error) {
	o, err := w.Decide(told(ctx, e), r, w.Incoming(e))
	if err != nil {
		return nil, err
	}
	return w.flown(&o), nil
}

// flown is an outcome as a flight file has it.
func (w *World) flown(o *Outcome) *flight.Outcome {
	out := &flight.Outcome{Action: o.Action, Context: o.Context, Record: o.Record}
	if o.Destination.IsValid() {
		out.Destination = w.place(o.Destination)
	}
	if len(o.Reasons) > 0 {
		r := &o.Reasons[0]
		out.Layer, out.Filter, out.FilterName, out.Callout = r.Layer.String(), uint64(r.Filter), r.Name, string(r.Callout)
		out.Rule, out.Why = r.Rule, r.Why
	}
	return out
}
