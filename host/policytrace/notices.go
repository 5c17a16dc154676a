package policytrace

import (
	"fmt"
	"net/netip"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/internal/oneline"
)

// Redirect is what became of the redirect that a callout asked for: redirect,
// redirect-refused or redirect-failed. One that was applied has no text: that is
// the callout's answer.
func (r Reader) Redirect(ev ale.RedirectEvent) (Event, string) {
	e := Event{Event: "redirect", Layer: ev.Layer.String(), Program: ev.AppID, PID: ev.ProcessID, Original: addr(ev.Original), To: addr(ev.Target),
		Proxy: r.Policy.ProxyID(ev.Target), Rule: ev.Rule, Why: ev.Why}
	by := r.blame(&e, ev.Filter, ev.Callout)
	switch {
	case ev.Err != nil:
		e.Event, e.Why = "redirect-failed", ev.Err.Error()
		return e, fmt.Sprintf("%s to %s %s: redirected to %s%s, where: %s", Program(ev.AppID, ev.ProcessID), ev.Original, r.paint("failed"), r.To(ev.Target), by, Clean(e.Why))
	case !ev.Applied:
		e.Event = "redirect-refused"
		return e, fmt.Sprintf("%s to %s: redirect to %s%s %s (%s): %s", Program(ev.AppID, ev.ProcessID), ev.Original, r.To(ev.Target), by, r.paint("refused"), ev.Rule, Clean(ev.Why))
	}
	return e, ""
}

// blame fills in whose decision it was, and says it.
func (r Reader) blame(e *Event, f fwpm.FilterID, c fwpm.CalloutID) string {
	if f == 0 {
		return ""
	}
	e.Filter, e.Name, e.Place, e.Callout = uint64(f), r.Policy.FilterName(f), r.Policy.File.Place(f), string(c)
	return e.by()
}

// Blocked is one denial: who, where to, what decided and why. local is where a bind
// or listen was meant to be.
func (r Reader) Blocked(b *ale.BlockedError, local netip.AddrPort) (Event, string) {
	e := Event{Event: "blocked", Layer: b.Layer.String(), Program: b.AppID, PID: b.ProcessID, To: addr(b.Remote), Action: "block", Rule: b.Rule, Why: b.Why}
	switch {
	case !b.Layer.Offers(fwpm.ConditionIPRemoteAddress):
		e.From, e.To = addr(local), ""
	case b.Layer.ForFamily(false) == fwpm.LayerALEAuthRecvAcceptV4:
		e.From, e.To, e.Inbound = e.To, addr(local), true
	}
	r.blame(&e, b.Filter, b.Callout)
	name, also := r.met(b.Filter, b.PeerNames)
	if e.PeerName = name; also != "" {
		e.Why += ", as " + also
	}
	return e, fmt.Sprintf("%s%s %s%s", Program(b.AppID, b.ProcessID), r.direction(b), r.paint("blocked"), e.Because())
}

func (r Reader) direction(b *ale.BlockedError) string {
	switch {
	case !b.Layer.Offers(fwpm.ConditionIPRemoteAddress): // a bind or a listen
		return ""
	case b.Layer.ForFamily(false) == fwpm.LayerALEAuthRecvAcceptV4:
		return " from " + r.To(b.Remote)
	}
	return " to " + r.To(b.Remote)
}

// Rule cites a rule. ARB-01 is left out: it says that filters are asked by weight.
func Rule(id string) string {
	if id == "" || id == "ARB-01" {
		return ""
	}
	return " (" + id + ")"
}

// Denied is Blocked for a denial that is not the policy's. to need not be known.
func (r Reader) Denied(app string, pid uint32, to netip.AddrPort, err error) (Event, string) {
	where := ""
	if to.IsValid() {
		where = " to " + to.String()
	}
	return Event{Event: "blocked", Program: app, PID: pid, To: addr(to), Action: "block", Why: err.Error()},
		fmt.Sprintf("%s%s %s: %s", Program(app, pid), where, r.paint("blocked"), Clean(err.Error()))
}

// Callout is what happened to a callout as a whole.
func Callout(ev guest.Event) (Event, string) {
	e := Event{Event: "callout", Callout: ev.Module, Action: ev.Kind.String()}
	text := fmt.Sprintf("callout %q %s", ev.Module, e.Action)
	if ev.Err != nil {
		e.Why = ev.Err.Error()
	}
	if ev.Kind == guest.EventQuarantined { // The error says all of it.
		text = e.Why
	}
	return e, Clean(text)
}

// Logged is what somebody may need to look into.
func Logged(format string, args ...any) (Event, string) {
	text := fmt.Sprintf(format, args...)
	return Event{Event: "log", Why: text}, Clean(text)
}

// Clean makes text of others safe to print: a program may be called, and a callout
// may answer, what would move the cursor or forge a line.
func Clean(s string) string {
	return oneline.Clean(s)
}
