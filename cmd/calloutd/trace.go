package main

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
)

// A tracer prints what the engine decided, one line a fact.
type tracer struct {
	mu    sync.Mutex
	out   io.Writer
	json  bool
	quiet bool // denials only
}

type event struct {
	Event   string `json:"event"`
	Layer   string `json:"layer,omitempty"`
	Program string `json:"program,omitempty"`
	PID     uint32 `json:"pid,omitempty"`
	To      string `json:"to,omitempty"`
	From    string `json:"original,omitempty"`
	State   string `json:"redirect_state,omitempty"`
	Action  string `json:"action,omitempty"`
	Filter  uint64 `json:"filter,omitempty"`
	Name    string `json:"filter_name,omitempty"`
	Callout string `json:"callout,omitempty"`
	Rule    string `json:"rule,omitempty"`
	Why     string `json:"why,omitempty"`
}

func (t *tracer) emit(e event, text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.json {
		// A trace that cannot be written has no better place to say so.
		_ = json.NewEncoder(t.out).Encode(e)
		return
	}
	fmt.Fprintln(t.out, text)
}

func (t *tracer) decision(in *fwps.Incoming, d *fwps.Decision) {
	if t.quiet {
		return
	}
	state := "not-redirected"
	if h := in.Records.Last(); h != nil {
		st, _ := in.Records.State(h.Handle)
		state = st.String()
	}
	e := event{Event: "classify", Layer: in.Layer.String(), Program: in.AppID, PID: in.ProcessID, To: in.Remote.String(), State: state, Action: d.Action.String()}
	t.emit(e, fmt.Sprintf("%-27s %s[%d] -> %s %s: %s", e.Layer, e.Program, e.PID, e.To, state, e.Action))
	for i := range d.Steps {
		s := &d.Steps[i]
		se := event{Event: "filter", Layer: e.Layer, Filter: uint64(s.Filter), Name: s.Name, Callout: string(s.Callout), Action: s.Action.String(), Rule: s.Rule, Why: s.Why}
		text := fmt.Sprintf("    filter %d %q in %s", s.Filter, s.Name, s.Sublayer)
		if s.Callout != "" {
			text += fmt.Sprintf(" calls %q", s.Callout)
		}
		t.emit(se, fmt.Sprintf("%s: %s %s %s", text, s.Action, s.Rule, s.Why))
	}
}

func (t *tracer) redirect(ev ale.RedirectEvent) {
	e := event{Event: "redirect-applied", To: ev.Target.String(), From: ev.Original.String(), Filter: uint64(ev.Filter), Callout: string(ev.Callout), Rule: ev.Rule, Why: ev.Why}
	text := fmt.Sprintf("redirected %s -> %s by filter %d, callout %q", ev.Original, ev.Target, ev.Filter, ev.Callout)
	if !ev.Applied {
		e.Event = "redirect-refused"
		text = fmt.Sprintf("calloutd: redirect of %s to %s refused (%s): %s: filter %d, callout %q", ev.Original, ev.Target, ev.Rule, ev.Why, ev.Filter, ev.Callout)
	} else if t.quiet {
		return
	}
	t.emit(e, text)
}

func (t *tracer) blocked(b *ale.BlockedError) {
	t.emit(event{Event: "blocked", Layer: b.Layer.String(), Program: b.AppID, PID: b.ProcessID, To: b.Remote.String(),
		Action: "block", Filter: uint64(b.Filter), Name: b.Name, Callout: string(b.Callout), Rule: b.Rule, Why: b.Why}, "calloutd: "+b.Error())
}

func (t *tracer) logf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	t.emit(event{Event: "log", Why: text}, "calloutd: "+text)
}
