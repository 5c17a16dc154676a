package ale

import (
	"fmt"
	"net/netip"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/oneline"
)

// A BlockedError says what blocked an operation: the layer, the filter, the
// callout and the rule that made it final.
type BlockedError struct {
	Layer     fwpm.LayerID
	Filter    fwpm.FilterID // zero when the host itself refused
	Name      string        // the filter's
	Callout   fwpm.CalloutID
	Rule      string
	Why       string
	Remote    netip.AddrPort // not valid for a bind or listen
	Local     netip.AddrPort
	ProcessID uint32
	AppID     string
	PeerNames *fwps.PeerNames // of Remote, where they are known
}

func (e *BlockedError) Error() string {
	s := fmt.Sprintf("%s to %s blocked at %s", who(e.AppID, e.ProcessID), e.Remote, e.Layer)
	if !e.Remote.IsValid() {
		s = fmt.Sprintf("%s on %s blocked at %s", who(e.AppID, e.ProcessID), e.Local, e.Layer)
	}
	if e.Filter != 0 {
		s += fmt.Sprintf(" by filter %d %q", e.Filter, e.Name)
	}
	if e.Callout != "" {
		s += fmt.Sprintf(", callout %q", e.Callout)
	}
	if e.Rule != "" {
		s += " (" + e.Rule + ")"
	}
	return s + ": " + e.Why
}

func who(app string, pid uint32) string {
	if app == "" {
		app = "unknown program"
	}
	app = oneline.Quote(app) // Who makes a program chooses its path, and would write lines of a log.
	if pid == 0 {
		return app // It is not known.
	}
	return fmt.Sprintf("%s[%d]", app, pid)
}

func blocked(in *fwps.Incoming, d *fwps.Decision) *BlockedError {
	e := refused(in, "", "the policy blocks it")
	if s := d.Decider(); s != nil {
		e.Filter, e.Name, e.Callout, e.Rule = s.Filter, s.Name, s.Callout, s.Rule
		if s.Why != "" {
			e.Why = s.Why
		}
	}
	return e
}

// refusedTo is refused for what a callout made of a request.
func refusedTo(in *fwps.Incoming, ev *RedirectEvent, filter, rule, why string) *BlockedError {
	e := refused(in, rule, why)
	e.Layer, e.Filter, e.Name, e.Callout = ev.Layer, ev.Filter, filter, ev.Callout
	return e
}

// nameOf is the name of a filter that was asked.
func nameOf(d *fwps.Decision, id fwpm.FilterID) string {
	for i := range d.Steps {
		if s := &d.Steps[i]; s.Filter == id {
			return s.Name
		}
	}
	return ""
}

func refused(in *fwps.Incoming, rule, why string) *BlockedError {
	return &BlockedError{Layer: in.Layer, Rule: rule, Why: why, Remote: in.Remote, Local: in.Local, ProcessID: in.ProcessID, AppID: in.AppID, PeerNames: in.PeerNames}
}
