package conformance

import (
	"context"
	"fmt"
	"strings"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// printf adds a line to the trace.
func (w *world) printf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(&w.trace, format+"\n", args...)
}

// traced prints every classification.
type traced struct {
	w *world
	fwps.Classifier
}

func (t traced) Classify(ctx context.Context, in *fwps.Incoming, d *fwps.Decision) {
	t.Classifier.Classify(ctx, in, d)
	if t.w.opts["quiet"] == "" || len(d.Steps) > 0 {
		t.w.decision(in, d)
	}
}

func short(l fwpm.LayerID) string { return strings.TrimPrefix(l.String(), "ALE_") }

func (w *world) decision(in *fwps.Incoming, d *fwps.Decision) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", short(in.Layer), in.Local)
	if in.Remote.IsValid() {
		fmt.Fprintf(&b, " -> %s", in.Remote)
	}
	if f := in.ConditionFlags(); f != 0 {
		fmt.Fprintf(&b, " [%s]", f)
	}
	if in.ReauthorizeReason != 0 {
		fmt.Fprintf(&b, " reason=%#x", uint32(in.ReauthorizeReason))
	}
	fmt.Fprintf(&b, ": %s%s", d.Action, softness(d))
	for i := range d.Steps {
		fmt.Fprintf(&b, "\n  %s", step(&d.Steps[i]))
	}
	for r := d.Connect; r != nil && r.Previous != nil; r = r.Previous {
		fmt.Fprintf(&b, "\n  version by filter %d: %s", r.ModifierFilterID, connectRequest(r))
	}
	for r := d.Bind; r != nil && r.Previous != nil; r = r.Previous {
		fmt.Fprintf(&b, "\n  version by filter %d: %s token=%d", r.ModifierFilterID, r.Local, r.PortReservationToken)
	}
	if w.opts["endpoints"] != "" {
		fmt.Fprintf(&b, "\n  endpoint %d of %d", in.EndpointID, in.ParentEndpointID)
	}
	if w.opts["metadata"] != "" {
		fmt.Fprintf(&b, "\n  metadata: %s", strings.Join(in.Metadata().Names(), " "))
		if in.Metadata()&fwpm.MetadataOriginalDestination != 0 {
			fmt.Fprintf(&b, "\n  original destination %s, target pid %d", in.OriginalDestination, in.LocalRedirectTargetPID)
		}
	}
	w.printf("%s", b.String())
}

func softness(d *fwps.Decision) string {
	s := " hard"
	switch {
	case d.Deciding < 0:
		s = " by default"
	case d.Rights&fwps.RightActionWrite != 0:
		s = " soft"
	}
	if d.Vetoed {
		s += " veto"
	}
	if d.Absorbed {
		s += " absorbed"
	}
	return s
}

func step(s *fwps.Step) string {
	out := "host"
	if s.Filter != 0 {
		out = fmt.Sprintf("filter %d in %s", s.Filter, s.Sublayer)
	}
	if s.Callout != "" {
		out += " asks " + string(s.Callout)
	}
	out += ": " + s.Action.String()
	if s.Hard {
		out += " hard"
	}
	if s.Redirected {
		out += " redirect"
	}
	if s.Rule != "ARB-01" {
		out += " (" + s.Rule + ")"
	}
	if s.Why != "" {
		out += ": " + s.Why
	}
	return out
}

func connectRequest(r *fwps.ConnectRequest) string {
	s := fmt.Sprintf("%s pid=%d", r.Remote, r.LocalRedirectTargetPID)
	if r.LocalRedirectHandle == 0 {
		s += " no handle"
	}
	if r.Local != r.Previous.Local {
		s += fmt.Sprintf(" local=%s", r.Local)
	}
	if r.PortReservationToken != 0 {
		s += fmt.Sprintf(" token=%d", r.PortReservationToken)
	}
	if len(r.LocalRedirectContext) > 0 {
		s += fmt.Sprintf(" context=%q", r.LocalRedirectContext)
	}
	return s
}

// act prints what happens on the network, in its place among the layers.
func (w *world) act(format string, args ...any) {
	if w.opts["acts"] != "" {
		w.printf("* "+format, args...)
	}
}

func (w *world) redirected(ev ale.RedirectEvent) {
	what := "applied"
	switch {
	case ev.Err != nil:
		what = fmt.Sprintf("failed: %v", ev.Err)
	case !ev.Applied:
		what = fmt.Sprintf("refused (%s): %s", ev.Rule, ev.Why)
	}
	w.printf("redirect %s -> %s %s", ev.Original, ev.Target, what)
	w.engine.RedirectEvent(fwpm.NetEventRedirect(ev))
}

// asked prints what a callout sees.
func (w *world) asked(name string, c *fwps.Call) {
	s := fmt.Sprintf("  %s sees %s", name, c.State)
	if c.Hop != nil {
		s += fmt.Sprintf(" context=%q", c.Hop.Context)
		if len(c.Hop.Record) > 0 {
			s += fmt.Sprintf(" record=%q", c.Hop.Record)
		}
	}
	if c.Rights&fwps.RightActionWrite == 0 {
		s += " without ACTION_WRITE"
	}
	if c.In.ConditionFlags()&fwp.FlagIsReauthorize != 0 {
		s += " IS_REAUTHORIZE"
	}
	if c.FlowContext != 0 {
		s += fmt.Sprintf(" flow-context=%d", c.FlowContext)
	}
	if c.Filter.Context != 0 {
		s += fmt.Sprintf(" filter-context=%d", c.Filter.Context)
	}
	for v := c.Connect; v != nil && v.Previous != nil; v = v.Previous {
		s += fmt.Sprintf(" version-by=%d", v.ModifierFilterID)
	}
	w.printf("%s", s)
}

func (w *world) format(name string, c *fwps.Call) {
	n, st := c.QuerySIOFormatRedirectRecords(nil)
	w.printf("  %s: format into nothing: %v, size known: %v", name, st, n > 0)
	buf := make([]byte, n)
	_, st = c.QuerySIOFormatRedirectRecords(buf)
	w.printf("  %s: format: %v", name, st)
	w.vars["formatted-before"], w.vars["formatted"] = w.vars["formatted"], buf
}
