package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/policyrun"
	"github.com/calloutd/calloutd/host/redirect"
)

// A tracer prints what the engine decided, one line a fact.
type tracer struct {
	mu     sync.Mutex
	out    io.Writer
	paint  painter
	json   bool
	all    bool                             // not only what went wrong
	policy atomic.Pointer[policyrun.Policy] // the newest

	log *eventLog // of --events; nil: nobody reads them
	sum *summary  // of --summary; nil likewise

	logger *slog.Logger // of a daemon, in place of out

	tape *tape // of --record; nil likewise

	store redirect.Store // of --records; nil: in memory
}

func newTracer(out io.Writer, asJSON, all bool) *tracer {
	return &tracer{out: out, paint: paintFor(out), json: asJSON, all: all}
}

// emit records an event and prints it.
func (t *tracer) emit(e event, text string) {
	t.record(e)
	t.print(e, text)
}

func (t *tracer) record(e event) {
	t.log.write(e)
	t.sum.add(e)
}

// print prints a line: v, or the text.
func (t *tracer) print(v any, text string) {
	if e, ok := v.(event); ok && t.logger != nil {
		t.logger.LogAttrs(context.Background(), e.level(), e.Event, e.attrs()...)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.json {
		// A trace that cannot be written has no better place to say so.
		_ = json.NewEncoder(t.out).Encode(v)
		return
	}
	fmt.Fprintln(t.out, text)
}

// decision prints a classification: the layer, and each filter that was asked.
func (t *tracer) decision(in *fwps.Incoming, d *fwps.Decision) {
	if !t.all && t.log == nil && t.sum == nil {
		return
	}
	e := event{Event: "classify", Layer: in.Layer.String(), Program: in.AppID, PID: in.ProcessID, Action: d.Action.String(),
		Protocol: protocolName(in.Protocol), Inbound: in.Inbound, Flags: in.ConditionFlags().Names(), Original: addr(in.OriginalDestination), PeerName: in.Other[fwpm.ConditionPeerName].Text}
	from, to := in.Local, in.Remote
	switch {
	case !in.Layer.Offers(fwpm.ConditionIPRemoteAddress):
		to = netip.AddrPort{}
	case in.Inbound:
		from, to = to, from
	}
	e.From, e.To, e.Proxy = addr(from), addr(to), t.proxyAt(to)
	lines := []string{fmt.Sprintf("%-26s %s: %s", e.Layer, t.who(e, in), t.paint.word(e.Action))}
	for i := range d.Steps {
		s := t.step(in, d, i)
		e.Steps = append(e.Steps, s)
		lines = append(lines, "    "+t.describe(s))
	}
	if len(d.Steps) == 0 {
		lines = append(lines, "    no filter matches (ARB-09)")
	}
	t.record(e)
	if t.all {
		t.print(e, strings.Join(lines, "\n"))
	}
}

// addr is empty for an address that is not known, or not yet.
func addr(a netip.AddrPort) string {
	if !a.IsValid() || a.Addr().IsUnspecified() && a.Port() == 0 {
		return ""
	}
	return a.String()
}

func (t *tracer) who(e event, in *fwps.Incoming) string {
	s := program(e.Program, e.PID)
	switch {
	case !in.Layer.Offers(fwpm.ConditionIPRemoteAddress):
		return s + " at " + in.Local.String()
	case in.Inbound:
		return s + " <- " + e.From
	}
	return s + " -> " + t.to(in.Remote)
}

func program(app string, pid uint32) string {
	if app == "" {
		app = "unknown program"
	}
	return fmt.Sprintf("%s[%d]", clean(app), pid)
}

// to is an address, with the proxy of the policy that has it.
func (t *tracer) to(a netip.AddrPort) string {
	if p := t.proxyAt(a); p != "" {
		return fmt.Sprintf("%s (proxy %s)", a, p)
	}
	return a.String()
}

func (t *tracer) step(in *fwps.Incoming, d *fwps.Decision, i int) step {
	s := &d.Steps[i]
	out := step{Filter: uint64(s.Filter), Name: s.Name, Place: t.policy.Load().File.Place(s.Filter), Sublayer: string(s.Sublayer),
		Callout: string(s.Callout), Action: s.Action.String(), Hard: s.Hard, Veto: s.Veto, Rule: s.Rule, Why: s.Why}
	if h, ok := t.policy.Load().Handles[s.Callout]; ok && in.Layer.IsConnectRedirect() {
		st, _ := in.Records.State(h)
		out.State = st.String()
	}
	if s.Redirected {
		out.Action, out.To = "redirect", t.to(target(d, s.Filter))
	}
	return out
}

// target is where a filter's callout wants the request to go: the newest version
// of it that is the filter's.
func target(d *fwps.Decision, f fwpm.FilterID) netip.AddrPort {
	for r := d.Connect; r != nil; r = r.Previous {
		if r.ModifierFilterID == f {
			return r.Remote
		}
	}
	for r := d.Bind; r != nil; r = r.Previous {
		if r.ModifierFilterID == f {
			return r.Local
		}
	}
	return netip.AddrPort{}
}

func (t *tracer) describe(s step) string {
	var b strings.Builder
	fmt.Fprintf(&b, "filter %d %q", s.Filter, s.Name)
	if s.Place != "" {
		fmt.Fprintf(&b, " (%s)", s.Place)
	}
	fmt.Fprintf(&b, " in %s", s.Sublayer)
	if s.Callout != "" {
		fmt.Fprintf(&b, " asks callout %q", s.Callout)
	}
	if s.State != "" {
		fmt.Fprintf(&b, " (%s)", s.State)
	}
	fmt.Fprintf(&b, ": %s", t.paint.word(s.Action))
	if s.To != "" {
		b.WriteString(" to " + s.To)
	}
	if s.Hard {
		b.WriteString(", hard")
	}
	if s.Veto {
		b.WriteString(", a veto")
	}
	if s.Why != "" {
		b.WriteString(": " + clean(s.Why))
	}
	b.WriteString(rule(s.Rule))
	return b.String()
}

// redirect prints what became of the redirect that a callout asked for.
func (t *tracer) redirect(ev ale.RedirectEvent) {
	e := event{Event: "redirect", Layer: ev.Layer.String(), Program: ev.AppID, PID: ev.ProcessID, Original: addr(ev.Original), To: addr(ev.Target),
		Proxy: t.proxyAt(ev.Target), Rule: ev.Rule, Why: ev.Why}
	by := t.blame(&e, ev.Filter, ev.Callout)
	switch {
	case ev.Err != nil:
		e.Event, e.Why = "redirect-failed", ev.Err.Error()
		t.emit(e, fmt.Sprintf("calloutd: %s to %s %s: redirected to %s%s, where: %v", program(ev.AppID, ev.ProcessID), ev.Original, t.paint.word("failed"), t.to(ev.Target), by, ev.Err))
	case !ev.Applied:
		e.Event = "redirect-refused"
		t.emit(e, fmt.Sprintf("calloutd: %s to %s: redirect to %s%s %s (%s): %s", program(ev.AppID, ev.ProcessID), ev.Original, t.to(ev.Target), by, t.paint.word("refused"), ev.Rule, ev.Why))
	default:
		t.record(e)
		if t.all && t.json { // The text has it with the callout's answer.
			t.print(e, "")
		}
	}
}

// blame fills in whose decision it was, and says it.
func (t *tracer) blame(e *event, f fwpm.FilterID, c fwpm.CalloutID) string {
	if f == 0 {
		return ""
	}
	e.Filter, e.Name, e.Place, e.Callout = uint64(f), t.policy.Load().FilterName(f), t.policy.Load().File.Place(f), string(c)
	return e.by()
}

// blocked prints one denial: who, where to, what decided and why. local is where
// a bind or listen was meant to be.
func (t *tracer) blocked(b *ale.BlockedError, local netip.AddrPort) {
	e := event{Event: "blocked", Layer: b.Layer.String(), Program: b.AppID, PID: b.ProcessID, To: addr(b.Remote), Action: "block", Rule: b.Rule, Why: b.Why}
	switch {
	case !b.Layer.Offers(fwpm.ConditionIPRemoteAddress):
		e.From, e.To = addr(local), ""
	case b.Layer.ForFamily(false) == fwpm.LayerALEAuthRecvAcceptV4:
		e.From, e.To, e.Inbound = e.To, addr(local), true
	}
	t.blame(&e, b.Filter, b.Callout)
	t.emit(e, fmt.Sprintf("calloutd: %s%s %s%s", program(b.AppID, b.ProcessID), t.direction(b), t.paint.word("blocked"), e.at()))
}

func (t *tracer) direction(b *ale.BlockedError) string {
	switch {
	case !b.Layer.Offers(fwpm.ConditionIPRemoteAddress): // a bind or a listen
		return ""
	case b.Layer.ForFamily(false) == fwpm.LayerALEAuthRecvAcceptV4:
		return " from " + t.to(b.Remote)
	}
	return " to " + t.to(b.Remote)
}

// rule cites a rule. ARB-01 is left out: it says that filters are asked by weight.
func rule(id string) string {
	if id == "" || id == "ARB-01" {
		return ""
	}
	return " (" + id + ")"
}

// denied is blocked for a denial that is not the policy's.
func (t *tracer) denied(app string, pid uint32, to netip.AddrPort, err error) {
	t.emit(event{Event: "blocked", Program: app, PID: pid, To: addr(to), Action: "block", Why: err.Error()},
		fmt.Sprintf("calloutd: %s to %s %s: %s", program(app, pid), to, t.paint.word("blocked"), clean(err.Error())))
}

// callout prints what happened to a callout as a whole.
func (t *tracer) callout(ev guest.Event) {
	e := event{Event: "callout", Callout: ev.Module, Action: ev.Kind.String()}
	text := fmt.Sprintf("callout %q %s", ev.Module, e.Action)
	if ev.Err != nil {
		e.Why = ev.Err.Error()
	}
	if ev.Kind == guest.EventQuarantined { // The error says all of it.
		text = e.Why
	}
	t.emit(e, "calloutd: "+clean(text))
}

func (t *tracer) logf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	t.emit(event{Event: "log", Why: text}, "calloutd: "+clean(text))
}
