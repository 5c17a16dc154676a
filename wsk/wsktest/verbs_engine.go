package wsktest

import (
	"errors"
	"runtime"
	"strings"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// engineVerbs are the words about callouts, filters and what they saw.
var engineVerbs = map[string]verb{
	"callout":    {args: 1, keys: "redirect pid handle context record format hold always layer bind only-port", do: calloutWord},
	"unregister": {args: 1, do: func(w *world, s *statement) error { return w.callouts[s.args[0]].unregister() }},
	"filter":     {args: 2, keys: "port", do: filterWord},
	"remove-filters": {args: 0, do: func(w *world, _ *statement) error {
		return w.engine.Update(func(p *fwpm.Policy) error { p.Filters = nil; return nil })
	}},
	// called: how often, and in which state, a callout was asked.
	"called":   {args: 1, keys: "times state record context records last-format", do: calledWord},
	"held":     {args: 1, do: func(w *world, s *statement) error { return wait("the callout", w.callouts[s.args[0]].heldC) }},
	"complete": {args: 1, do: func(w *world, s *statement) error { w.callouts[s.args[0]].complete(); return nil }},
	"saw":      {args: 1, keys: "times remote flags app original action endpoint", do: sawWord},
	// seen: waits until a layer was asked.
	"seen": {args: 1, do: func(w *world, s *statement) error {
		return within("the classification", func() {
			for w.asked(s.args[0]) == 0 {
				runtime.Gosched()
			}
		})
	}},
	"forget": {args: 0, do: func(w *world, _ *statement) error { w.mu.Lock(); w.decisions = nil; w.mu.Unlock(); return nil }},
}

func calloutWord(w *world, s *statement) error {
	c := &callout{w: w, name: s.args[0], to: s.keys["redirect"], noHandle: s.keys["handle"] == "none", always: s.keys["always"] == "yes",
		hold: s.keys["hold"] == "yes", heldC: make(chan struct{})}
	var err error
	if v, ok := s.keys["pid"]; ok {
		n, nerr := w.number(v)
		c.pid, err = uint32(n), errors.Join(err, nerr)
	}
	if v, ok := s.keys["only-port"]; ok {
		n, nerr := w.number(v)
		c.port, err = uint16(n), errors.Join(err, nerr)
	}
	for key, into := range map[string]*[]byte{"record": &c.record, "context": &c.context} {
		if v, ok := s.keys[key]; ok {
			b, berr := w.blob(v)
			*into, err = b, errors.Join(err, berr)
		}
	}
	if v, ok := s.keys["format"]; ok {
		c.format = strings.Split(v, ",")
	}
	if err != nil {
		return err
	}
	_, c.unregister, err = w.engine.RegisterCallout(fwpm.CalloutID(c.name), c)
	if err != nil {
		return err
	}
	w.callouts[c.name] = c
	layers := []fwpm.LayerID{fwpm.LayerALEConnectRedirectV4, fwpm.LayerALEConnectRedirectV6}
	if s.keys["layer"] == "bind" {
		layers = []fwpm.LayerID{fwpm.LayerALEBindRedirectV4, fwpm.LayerALEBindRedirectV6}
	}
	return w.engine.Update(func(p *fwpm.Policy) error {
		sub := fwpm.SublayerID("of-" + c.name)
		p.Sublayers = append(p.Sublayers, fwpm.Sublayer{ID: sub, Name: c.name, Weight: uint16(0xF000 - len(w.callouts))})
		p.Callouts = append(p.Callouts, fwpm.Callout{ID: fwpm.CalloutID(c.name), Name: c.name})
		for _, l := range layers {
			w.filters++
			p.Filters = append(p.Filters, fwpm.Filter{ID: fwpm.FilterID(w.filters), Name: c.name, Layer: l, Sublayer: sub,
				Action: fwp.ActionCalloutUnknown, Callout: fwpm.CalloutID(c.name)})
		}
		return nil
	})
}

func calledWord(w *world, s *statement) error {
	c := w.callouts[s.args[0]]
	c.mu.Lock()
	defer c.mu.Unlock()
	got := map[string]any{"times": len(c.seen), "last-format": strings.Join(c.formats, ",")}
	if n := len(c.seen); n > 0 {
		x := c.seen[n-1]
		got["state"], got["record"], got["context"], got["records"] = x.state.String(), x.record, x.context, x.records
	}
	return w.sameAll(s, got)
}

// filterWord is: filter LAYER block|permit
func filterWord(w *world, s *statement) error {
	l, ok := fwpm.ParseLayer(s.args[0])
	action, known := map[string]fwp.Action{"block": fwp.ActionBlock, "permit": fwp.ActionPermit}[s.args[1]]
	if !ok || !known {
		return errors.New("a layer, and block or permit")
	}
	return w.engine.Update(func(p *fwpm.Policy) error {
		w.filters++
		f := fwpm.Filter{ID: fwpm.FilterID(w.filters), Name: s.pos, Layer: l, Action: action}
		if v, ok := s.keys["port"]; ok {
			n, err := w.number(v)
			if err != nil {
				return err
			}
			f.Conditions = []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Match: fwp.MatchEqual, Value: fwp.Value{Type: fwp.Uint16, Uint: uint64(n)}}}
		}
		p.Filters = append(p.Filters, f)
		return nil
	})
}
