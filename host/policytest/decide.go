package policytest

import (
	"context"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
)

// Decide takes one described connection through the layers. What they were asked
// is r.Asked, until the next one. Why it could not be decided is an error.
func (w *World) Decide(ctx context.Context, r *Recorder, in fwps.Incoming) (Outcome, error) {
	r.Asked = r.Asked[:0]
	from := r.next()
	var sock *ale.Socket
	var f *ale.Flow
	var err error
	if in.Inbound {
		f, err = r.Enforcer.Accept(ctx, in)
	} else {
		sock, f, err = Connect(ctx, r.Enforcer, in)
	}
	o, err := r.outcome(w, from, f, err)
	r.written = r.trace.String() // without the end of the connection
	if f != nil {
		f.Close()
	}
	if sock != nil {
		sock.Close()
	}
	return o, err
}

// Trace is what was written down of the last Decide, without its end.
func (r *Recorder) Trace() string { return r.written }
