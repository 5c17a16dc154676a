package main

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/flight"
	"github.com/calloutd/calloutd/host/flight/recorder"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyrun"
)

// A tape is what --record writes: a flight file of every connection.
type tape struct {
	file string
	mask []string
	out  atomic.Pointer[flight.Writer]
}

func (r *tape) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.file, "record", "", "append every connection and its decision to this flight file, which replay and diff read")
	f.StringSliceVar(&r.mask, "mask", nil, maskUsage)
	completeFlag(cmd, "mask", flight.Masks...)
}

const maskUsage = "what the flight file must not hold: blobs (contexts and records), answers (what callouts were told), programs (their folders), users, hosts"

// records reports whether there is anything to write. A nil tape has not.
func (r *tape) records() bool { return r != nil && r.file != "" }

// wrap returns what makes the classifier that decisions come from: nil is the engine.
func (r *tape) wrap(t *tracer) func(*policyrun.Policy) fwps.Classifier {
	if !r.records() {
		return nil
	}
	return func(p *policyrun.Policy) fwps.Classifier {
		return recorder.New(recorder.Options{Classifier: p.Engine, Proxy: p.ProxyID, Write: r.write,
			OnError: func(err error) { t.logf("--record: nothing is recorded any more: %v", err) }})
	}
}

// write is for what happens before the policy is live, too: that has no entry.
func (r *tape) write(e *flight.Entry) error {
	if out := r.out.Load(); out != nil {
		return out.Write(e)
	}
	return nil
}

// begin opens the file; the function closes it.
func (r *tape) begin(p *policyrun.Policy, t *tracer) (func(), error) {
	if !r.records() {
		if len(r.mask) > 0 {
			return nil, errors.New("--mask needs --record: it is about what that file holds")
		}
		return func() {}, nil
	}
	mask, err := flight.ParseMask(r.mask)
	if err != nil {
		return nil, fmt.Errorf("--mask: %w", err)
	}
	out, err := flight.Append(r.file, flight.Header{Policy: p.Path, Process: p.ProcessID, Proxies: p.Proxies, Masked: mask})
	if err != nil {
		return nil, fmt.Errorf("--record: %w", err)
	}
	r.out.Store(out)
	return func() {
		if err := out.Close(); err != nil {
			t.logf("--record: the file is not complete: %v", err)
		}
	}, nil
}
