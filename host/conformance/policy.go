package conformance

import (
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// readPolicy reads the policy section. Callouts are declared by their own section
// and added by the caller.
func readPolicy(s section) (*fwpm.Policy, error) {
	p := new(fwpm.Policy)
	var f *fwpm.Filter
	for _, l := range s.lines() {
		if l.deep {
			if f == nil {
				return nil, l.errorf("a condition must follow its filter")
			}
			c, err := readCondition(l, f.Layer)
			if err != nil {
				return nil, err
			}
			f.Conditions = append(f.Conditions, c)
			continue
		}
		f = nil
		a := newArgs(l)
		kind, err := a.next("an object")
		if err == nil {
			f, err = readObject(p, a, kind)
		}
		if err == nil {
			err = a.end()
		}
		if err != nil {
			return nil, err
		}
	}
	return p, nil
}

// readObject reads one object into p. A filter is returned, for its conditions.
func readObject(p *fwpm.Policy, a *args, kind string) (f *fwpm.Filter, err error) {
	switch kind {
	case "provider":
		err = readProvider(p, a)
	case "context":
		err = readContext(p, a)
	case "sublayer":
		err = readSublayer(p, a)
	case "callout":
		err = readCallout(p, a)
	case "filter":
		var x fwpm.Filter
		if x, err = readFilter(a); err == nil {
			p.Filters = append(p.Filters, x)
			f = &p.Filters[len(p.Filters)-1]
		}
	default:
		err = a.l.errorf("object %q is unknown; expected provider, context, sublayer, callout or filter", kind)
	}
	return f, err
}

// named reads "ID" and options. An ID of - is none: the engine is to assign one.
func named(a *args, flags, keys string) (id, name string, o map[string]string, err error) {
	if id, err = a.next("a name"); err != nil {
		return "", "", nil, err
	}
	if o, err = a.options("persistent no-name "+flags, "provider "+keys); err != nil {
		return "", "", nil, err
	}
	if o["no-name"] == "" {
		name = id
	}
	return strings.TrimSuffix(id, "-"), name, o, nil
}

func readProvider(p *fwpm.Policy, a *args) error {
	id, name, o, err := named(a, "disabled", "service")
	p.Providers = append(p.Providers, fwpm.Provider{ID: fwpm.ProviderID(id), Name: name, Persistent: o["persistent"] != "",
		ServiceName: o["service"], Disabled: o["disabled"] != ""})
	return err
}

func readContext(p *fwpm.Policy, a *args) error {
	id, name, o, err := named(a, "", "")
	p.ProviderContexts = append(p.ProviderContexts, fwpm.ProviderContext{ID: fwpm.ProviderContextID(id), Name: name,
		Provider: fwpm.ProviderID(o["provider"]), Persistent: o["persistent"] != ""})
	return err
}

func readCallout(p *fwpm.Policy, a *args) error {
	id, name, o, err := named(a, "registered", "layer")
	if err != nil {
		return err
	}
	c := fwpm.Callout{ID: fwpm.CalloutID(id), Name: name, Provider: fwpm.ProviderID(o["provider"]), Persistent: o["persistent"] != "", Registered: o["registered"] != ""}
	if o["layer"] != "" {
		c.ApplicableLayer, err = readLayer(a.l, o["layer"])
	}
	p.Callouts = append(p.Callouts, c)
	return err
}

// readSublayer reads "ID WEIGHT" and options.
func readSublayer(p *fwpm.Policy, a *args) error {
	if len(a.rest) < 2 {
		return a.l.errorf("expected a name and a weight at the end of %q", a.l.text)
	}
	w, err := strconv.ParseUint(a.rest[1], 0, 16)
	if err != nil {
		return a.l.errorf("weight %q is no 16-bit number", a.rest[1])
	}
	a.rest = append(a.rest[:1:1], a.rest[2:]...)
	id, name, o, err := named(a, "", "")
	p.Sublayers = append(p.Sublayers, fwpm.Sublayer{ID: fwpm.SublayerID(id), Name: name, Weight: uint16(w),
		Provider: fwpm.ProviderID(o["provider"]), Persistent: o["persistent"] != ""})
	return err
}

var actionWords = map[string]fwp.Action{"permit": fwp.ActionPermit, "block": fwp.ActionBlock, "callout": fwp.ActionCalloutUnknown,
	"terminating": fwp.ActionCalloutTerminating, "inspection": fwp.ActionCalloutInspection, "continue": fwp.ActionContinue,
	"none": fwp.ActionNone, "no-match": fwp.ActionNoneNoMatch}

// readFilter reads "ID SUBLAYER LAYER ACTION [options]".
func readFilter(a *args) (f fwpm.Filter, err error) {
	var w [4]string
	for i, what := range []string{"a filter id", "a sublayer", "a layer", "an action"} {
		if w[i], err = a.next(what); err != nil {
			return f, err
		}
	}
	id, err := strconv.ParseUint(w[0], 10, 64)
	if err != nil {
		return f, a.l.errorf("filter id %q is no number", w[0])
	}
	f.ID, f.Name = fwpm.FilterID(id), "filter "+w[0]
	if w[1] != "-" {
		f.Sublayer = fwpm.SublayerID(w[1])
	}
	if f.Layer, err = readLayer(a.l, w[2]); err != nil {
		return f, err
	}
	var known bool
	if f.Action, known = actionWords[w[3]]; !known {
		return f, a.l.errorf("action %q is unknown", w[3])
	}
	o, err := a.options("hard permit-if-unregistered persistent boottime disabled no-name", "callout weight provider context")
	if err != nil {
		return f, err
	}
	f.Callout, f.Provider, f.ProviderContext = fwpm.CalloutID(o["callout"]), fwpm.ProviderID(o["provider"]), fwpm.ProviderContextID(o["context"])
	f.ClearActionRight, f.PermitIfCalloutUnregistered = o["hard"] != "", o["permit-if-unregistered"] != ""
	f.Persistent, f.Boottime, f.Disabled = o["persistent"] != "", o["boottime"] != "", o["disabled"] != ""
	if o["no-name"] != "" {
		f.Name = ""
	}
	f.Weight, err = readWeight(a.l, o["weight"])
	return f, err
}
