package conformance

import (
	"fmt"
	"strings"

	"github.com/calloutd/calloutd/host/fwpm"
)

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
