package conformance

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwpm"
)

// A session is a session of the script, with what ends its subscriptions.
type session struct {
	*host.Session
	unsubscribe []func()
}

// open NAME [dynamic] [kernel] [key=] [wait=DURATION]: its key is its name, or is
// assigned for key=-.
func (w *world) open(a *args) error {
	name, err := a.next("a name")
	if err != nil {
		return err
	}
	o, err := a.options("dynamic kernel", "key wait")
	if err != nil {
		return err
	}
	so := host.SessionOptions{Key: strings.TrimPrefix(cmp.Or(o["key"], name), "-"), Name: name, Dynamic: o["dynamic"] != "", KernelMode: o["kernel"] != ""}
	if o["wait"] != "" {
		if so.TxnWaitTimeout, err = time.ParseDuration(o["wait"]); err != nil {
			return a.l.errorf("%w", err)
		}
	}
	s, err := w.engine.Open(so)
	if err == nil {
		w.sessions[name] = &session{Session: s}
	}
	switch {
	case o["key"] == "-" && err == nil:
		w.printf("= open, with a key: %v", s.Key() != "")
	default:
		w.result(err, "open")
	}
	return nil
}

// sessionCommands are the words that follow "by SESSION".
var sessionCommands map[string]func(w *world, s *session, a *args) error

func init() {
	sessionCommands = map[string]func(*world, *session, *args) error{
		"begin": (*world).begin, "commit": (*world).commit, "abort": (*world).rollback, "close": (*world).closeSession,
		"add": (*world).sessionAdd, "delete": (*world).sessionDelete, "set": (*world).setOption, "get": (*world).getOption,
		"enumerate": (*world).enumerate, "subscribe": (*world).subscribe, "unsubscribe": (*world).unsubscribe,
	}
}

// by SESSION COMMAND ...
func (w *world) by(a *args) error {
	name, err := a.next("a session")
	if err != nil {
		return err
	}
	s := w.sessions[name]
	if s == nil {
		return a.l.errorf("there is no session %q", name)
	}
	word, err := a.next("a command")
	if err != nil {
		return err
	}
	f := sessionCommands[word]
	if f == nil {
		return a.l.errorf("command %q of a session is unknown", word)
	}
	return f(w, s, a)
}

// after is the clock of transactions that wait: a script that waits lets the time
// pass.
func (w *world) after(d time.Duration) <-chan time.Time {
	w.printf("  (%s pass)", d)
	w.clock = w.clock.Add(d)
	fired := make(chan time.Time, 1)
	fired <- w.clock
	return fired
}

// begin [read-only]
func (w *world) begin(s *session, a *args) error {
	o, err := a.options("read-only", "")
	if err != nil {
		return err
	}
	var flags host.TxnFlags
	if o["read-only"] != "" {
		flags = host.TxnReadOnly
	}
	w.result(s.Begin(flags), "begun")
	return nil
}

func (w *world) commit(s *session, _ *args) error {
	w.result(s.Commit(), "committed")
	return nil
}

func (w *world) rollback(s *session, _ *args) error {
	w.result(s.Abort(), "aborted")
	return nil
}

func (w *world) closeSession(s *session, _ *args) error {
	s.Close()
	w.result(nil, "closed")
	return nil
}

// add OBJECT: one call. What the engine assigned is told.
func (w *world) sessionAdd(s *session, a *args) error {
	p, err := object(a)
	if err != nil {
		return err
	}
	for _, o := range p.Providers {
		id, err := s.ProviderAdd(o)
		w.added(err, string(o.ID), string(id))
	}
	for _, o := range p.ProviderContexts {
		id, err := s.ProviderContextAdd(o)
		w.added(err, string(o.ID), string(id))
	}
	for _, o := range p.Sublayers {
		id, err := s.SublayerAdd(o)
		w.added(err, string(o.ID), string(id))
	}
	for _, o := range p.Callouts {
		id, err := s.CalloutAdd(o)
		w.added(err, string(o.ID), string(id))
	}
	for _, f := range p.Filters {
		id, err := s.FilterAdd(f)
		if f.ID == 0 && err == nil {
			w.printf("= added filter %d", id)
			continue
		}
		w.result(err, "added")
	}
	return nil
}

func (w *world) added(err error, want, id string) {
	if err == nil && want == "" {
		w.printf("= added, with a key: %v", id != "")
		return
	}
	w.result(err, "added")
}

// delete KIND ID
func (w *world) sessionDelete(s *session, a *args) error {
	kind, err := a.next("a kind of object")
	if err != nil {
		return err
	}
	id, err := a.next("an id")
	if err != nil {
		return err
	}
	switch kind {
	case "provider":
		err = s.ProviderDelete(fwpm.ProviderID(id))
	case "context":
		err = s.ProviderContextDelete(fwpm.ProviderContextID(id))
	case "sublayer":
		err = s.SublayerDelete(fwpm.SublayerID(id))
	case "callout":
		err = s.CalloutDelete(fwpm.CalloutID(id))
	case "filter":
		err = s.FilterDelete(fwpm.FilterID(number(id, 0)))
	default:
		return a.l.errorf("object %q is unknown; expected provider, context, sublayer, callout or filter", kind)
	}
	w.result(err, "deleted")
	return nil
}

var engineOptions = map[string]fwpm.EngineOption{"collect": fwpm.EngineCollectNetEvents, "keywords": fwpm.EngineNetEventMatchAnyKeywords, "none": 99}

func engineOption(a *args) (fwpm.EngineOption, error) {
	name, err := a.next("an option")
	o, known := engineOptions[name]
	if err == nil && !known {
		err = a.l.errorf("option %q is unknown; expected collect or keywords", name)
	}
	return o, err
}

// set collect|keywords VALUE
func (w *world) setOption(s *session, a *args) error {
	o, err := engineOption(a)
	if err != nil {
		return err
	}
	v, err := a.next("a value")
	if err != nil {
		return err
	}
	w.result(s.SetOption(o, number(v, 0)), "set")
	return nil
}

func (w *world) getOption(s *session, a *args) error {
	o, err := engineOption(a)
	if err != nil {
		return err
	}
	v, err := s.GetOption(o)
	w.result(err, "%#x", v)
	return nil
}

// boot-complete [SERVICE...]: the host is ready, and only these services start.
func (w *world) bootComplete(a *args) error {
	services := strings.Join(a.rest, " ")
	a.rest = nil
	w.result(w.engine.BootComplete(func(s string) bool { return hasWord(services, s) }), "ready")
	return nil
}

// statistics LAYER
func (w *world) statistics(a *args) error {
	l, err := a.layer()
	if err != nil {
		return err
	}
	n := w.engine.LayerStatistics(l)
	w.printf("= %d asked: %d permits, %d blocks, %d of them vetoes", n.ClassifyCount(), n.ClassifyPermitCount, n.ClassifyBlockCount, n.ClassifyVetoCount)
	return nil
}

// subscribe events, or KIND [add] [delete] [provider=] [layer=]
func (w *world) subscribe(s *session, a *args) error {
	what, err := a.next("what")
	if err != nil {
		return err
	}
	var end func()
	if what == "events" {
		end, err = s.NetEventSubscribe(func(e fwpm.NetEvent) { w.printf("  %s hears %s", w.nameOf(s), event(&e)) })
	} else if end, err = w.subscribeChanges(s, what, a); end == nil && err == nil {
		return a.l.errorf("%q cannot be subscribed to", what)
	}
	if err == nil {
		s.unsubscribe = append(s.unsubscribe, end)
	}
	w.result(err, "subscribed")
	return nil
}

func (w *world) nameOf(s *session) string {
	for name, other := range w.sessions {
		if other == s {
			return name
		}
	}
	return ""
}

var kinds = map[string]fwpm.Kind{"providers": fwpm.KindProvider, "contexts": fwpm.KindProviderContext, "sublayers": fwpm.KindSublayer,
	"callouts": fwpm.KindCallout, "filters": fwpm.KindFilter}

func (w *world) subscribeChanges(s *session, what string, a *args) (func(), error) {
	o, err := a.options("add delete", "provider layer")
	if err != nil {
		return nil, err
	}
	sub := fwpm.Subscription{Kind: kinds[what], NotifyOnAdd: o["add"] != "", NotifyOnDelete: o["delete"] != "", Template: fwpm.EnumTemplate{Provider: fwpm.ProviderID(o["provider"])}}
	if sub.Kind == 0 {
		return nil, nil
	}
	if o["layer"] != "" {
		sub.Filters = &fwpm.FilterEnumTemplate{Provider: sub.Template.Provider, ActionMask: fwpm.AnyAction}
		if sub.Filters.Layer, err = readLayer(a.l, o["layer"]); err != nil {
			return nil, err
		}
	}
	return s.SubscribeChanges(sub, func(c fwpm.Change) { w.printf("  %s hears %s %s %s", w.nameOf(s), c.Type, c.Kind, c.ID) })
}

func (w *world) unsubscribe(s *session, _ *args) error {
	for _, end := range s.unsubscribe {
		end()
	}
	s.unsubscribe = nil
	w.result(nil, "unsubscribed")
	return nil
}

// event is a net event in words.
func event(e *fwpm.NetEvent) string {
	s := e.Type.String() + " " + short(e.Layer)
	if e.AuditID != 0 {
		s += fmt.Sprintf(" audit %d", e.AuditID)
	}
	s += fmt.Sprintf(" filter %d", e.Filter)
	if e.Callout != "" {
		s += " callout " + string(e.Callout)
	}
	switch e.Type {
	case fwpm.NetEventClassifyDrop, fwpm.NetEventClassifyAllow:
		s += " outbound"
		if e.Inbound {
			s = strings.TrimSuffix(s, "outbound") + "inbound"
		}
		if e.Loopback {
			s += " loopback"
		}
		if e.ReauthorizeReason != 0 {
			s += fmt.Sprintf(" reason %#x", uint32(e.ReauthorizeReason))
		}
	default:
		s += fmt.Sprintf(" %s -> %s", e.Original, e.Target)
	}
	if e.Rule != "" {
		s += " (" + e.Rule + ")"
	}
	return s
}
