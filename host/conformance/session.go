package conformance

import (
	"cmp"
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
