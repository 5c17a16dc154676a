package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/flight"
	"github.com/calloutd/calloutd/host/policyrun"
	"github.com/calloutd/calloutd/host/policytest"
	"github.com/calloutd/calloutd/host/policytrace"
)

// A replayer decides entries again.
type replayer struct {
	cmd    *cobra.Command
	policy string
	beside *beside
	header flight.Header
	live   *policyrun.Policy
	asked  *policytest.World
	r      *policytest.Recorder

	n, known, differ int
	actions          map[string]int
	groups           map[string]*replayed
	order            []*replayed
}

// A replayed is decisions that differ for one cause, of which the first is shown.
type replayed struct {
	connection, was, is string
	parts               []string
	trace               string
	count               int
}

func (p *replayer) close() {
	if p.live != nil {
		p.live.Close()
	}
}

// begin makes the policy live as it was: each part of a file may be of another run.
func (p *replayer) begin(h flight.Header) error {
	if p.live != nil && maps.Equal(h.Proxies, p.header.Proxies) && h.Process == p.header.Process {
		p.header = h
		return nil
	}
	p.close()
	live, err := p.beside.describe(p.cmd.Context(), p.policy, policyrun.Description{Options: newTracer(io.Discard, false, false).options(), Proxies: h.Proxies, ProcessID: h.Process})
	if err != nil {
		p.live = nil
		return err
	}
	p.header, p.live, p.asked = h, live, policytrace.World(live)
	p.r = nil
	return nil
}

func (p *replayer) entry(e *flight.Entry, h flight.Header) error {
	if err := p.begin(h); err != nil {
		return err
	}
	if p.n%policytest.Renewed == 0 || p.r == nil {
		p.r = p.asked.Quiet().Record()
	}
	ctx := p.cmd.Context()
	is, err := p.asked.Replay(ctx, p.r, e)
	if err != nil {
		return err
	}
	p.n++
	p.actions[is.Action]++
	if e.Outcome == nil {
		return nil
	}
	p.known++
	parts := differing(e.Outcome, is, h)
	if len(parts) == 0 {
		return nil
	}
	p.differ++
	in := p.asked.Incoming(e)
	key := fmt.Sprint(parts, e.Outcome.Action, filterOf(e.Outcome), e.Outcome.Callout, is.Action, filterOf(is), is.Callout)
	g := p.groups[key]
	if g == nil {
		g = &replayed{connection: policytest.Describe(&in), was: apart(e.Outcome, is, parts), is: apart(is, e.Outcome, parts), parts: parts}
		r := p.asked.Record()
		if _, err := p.asked.Replay(ctx, r, e); err != nil {
			return err
		}
		g.trace = r.Trace()
		p.groups[key], p.order = g, append(p.order, g)
	}
	g.count++
	return nil
}

// apart is an outcome in a line, with what differs from another one.
func apart(d, other *flight.Outcome, parts []string) string {
	s := decision(d)
	for _, part := range parts {
		switch {
		case part == "destination" && d.Action != policytest.Redirect:
			s += ", to " + cmp.Or(d.Destination, policytest.None)
		case part == "layer":
			s += ", at " + cmp.Or(d.Layer, policytest.None)
		case part == "context":
			s += ", context " + unlike(d.Context, other.Context)
		case part == "record":
			s += ", record " + unlike(d.Record, other.Record)
		}
	}
	return policytrace.Clean(s)
}

// unlike is what bytes have where others are not like them.
func unlike(b, other []byte) string {
	if len(b) == 0 {
		return policytest.None
	}
	const shown = 32
	at := 0
	for at < min(len(b), len(other)) && b[at] == other[at] {
		at++
	}
	s := "of " + counted(len(b), "byte")
	if at < len(b) {
		s += fmt.Sprintf(", %q at %d", b[at:min(at+shown, len(b))], at)
	}
	return s
}

// differing names what of a decision is not as it was. Of what others decided only
// the action is known, and what was left out is not compared.
func differing(was, is *flight.Outcome, h flight.Header) (parts []string) {
	type part struct {
		name    string
		was, is string
	}
	all := []part{{"action", was.Action, is.Action}}
	if h.Source == "" {
		all = append(all, part{"destination", was.Destination, is.Destination}, part{"layer", was.Layer, is.Layer},
			part{"filter", filterOf(was), filterOf(is)}, part{"callout", was.Callout, is.Callout},
			part{"rule", was.Rule, is.Rule}, part{"reason", was.Why, is.Why})
		if !h.Masked.Has(flight.MaskBlobs) {
			all = append(all, part{"context", string(was.Context), string(is.Context)}, part{"record", string(was.Record), string(is.Record)})
		}
	}
	for _, p := range all {
		if p.was != p.is {
			parts = append(parts, p.name)
		}
	}
	return parts
}
