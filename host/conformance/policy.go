package conformance

import (
	"net/netip"
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

func readLayer(l line, s string) (fwpm.LayerID, error) {
	layer, ok := fwpm.ParseLayer("ALE_" + s)
	if !ok {
		if n, err := strconv.ParseUint(s, 10, 16); err == nil {
			return fwpm.LayerID(n), nil // for layers that there are not
		}
		return 0, l.errorf("layer %q is unknown", s)
	}
	return layer, nil
}

// readWeight reads "auto", a range "0" to "16", "exact:N" or "uint16:N".
func readWeight(l line, s string) (fwpm.Weight, error) {
	if s == "" || s == "auto" {
		return fwpm.Weight{}, nil
	}
	typ, num, found := strings.Cut(s, ":")
	if !found {
		typ, num = "range", s
	}
	t, known := map[string]fwp.DataType{"range": fwp.Uint8, "exact": fwp.Uint64, "uint16": fwp.Uint16}[typ]
	n, err := strconv.ParseUint(num, 0, 64)
	if err != nil || !known {
		return fwpm.Weight{}, l.errorf("weight %q: expected auto, a range, exact:N", s)
	}
	return fwpm.Weight{Type: t, Value: n}, nil
}

// readCondition reads "FIELD MATCH VALUE".
func readCondition(l line, layer fwpm.LayerID) (c fwpm.Condition, err error) {
	a := newArgs(l)
	field, _ := a.next("a field")
	match, err := a.next("a match type")
	if err != nil {
		return c, err
	}
	value, err := a.next("a value")
	if err != nil {
		return c, err
	}
	var ok bool
	if c.Field, ok = fwpm.ParseCondition(field); !ok {
		return c, l.errorf("field %q is unknown", field)
	}
	if c.Match, ok = fwp.ParseMatch(match); !ok {
		return c, l.errorf("match type %q is unknown", match)
	}
	if c.Value, err = readValue(l, c.Field.DataType(layer), value); err != nil {
		return c, err
	}
	return c, a.end()
}

var typeWords = map[string]fwp.DataType{"uint8": fwp.Uint8, "uint16": fwp.Uint16, "uint32": fwp.Uint32, "uint64": fwp.Uint64,
	"int8": fwp.Int8, "int16": fwp.Int16, "int32": fwp.Int32, "int64": fwp.Int64, "float": fwp.Float, "double": fwp.Double,
	"blob": fwp.ByteBlob, "string": fwp.UnicodeString, "sid": fwp.SIDType, "mac": fwp.ByteArray6}

// readValue reads a value of the field's type, or of another one as "TYPE:VALUE".
// Ranges are "LOW..HIGH"; an empty value is "empty".
func readValue(l line, t fwp.DataType, s string) (fwp.Value, error) {
	if s == "empty" {
		return fwp.Value{}, nil
	}
	if low, high, ok := strings.Cut(s, ".."); ok {
		a, err := readValue(l, t, low)
		if err != nil {
			return a, err
		}
		b, err := readValue(l, t, high)
		return fwp.Between(a, b), err
	}
	if kind, rest, ok := strings.Cut(s, ":"); ok {
		if other, known := typeWords[kind]; known {
			t, s = other, rest
		} else if kind == "sd" {
			sd, err := fwp.ParseSecurityDescriptor(rest)
			if err != nil {
				return fwp.Value{}, l.errorf("%w", err)
			}
			return fwp.Value{Type: fwp.SecurityDescriptorType, SD: sd}, nil
		} else if kind == "mask" { // also a wrong one
			p, err := netip.ParsePrefix(rest)
			v := fwp.Value{Type: fwp.V4AddrMask, Prefix: p}
			if strings.Contains(rest, ":") {
				v.Type = fwp.V6AddrMask
			}
			_ = err // The engine is to refuse it.
			return v, nil
		}
	}
	return readPlain(l, t, s)
}

func readPlain(l line, t fwp.DataType, s string) (fwp.Value, error) {
	switch t {
	case fwp.ByteBlob, fwp.UnicodeString, fwp.SIDType, fwp.ByteArray6:
		return fwp.Value{Type: t, Text: s}, nil
	case fwp.TokenAccessInformation:
		uid, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return fwp.Value{}, l.errorf("user %q is no number", s)
		}
		return fwp.Allow(fwp.UserSID(uint32(uid))), nil
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return fwp.Mask(p), nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return fwp.Addr(a), nil
	}
	if t == fwp.Uint32 {
		var flags fwp.ConditionFlags
		for name := range strings.SplitSeq(s, "|") {
			f, ok := fwp.ParseConditionFlag(name)
			if !ok {
				flags = 0
				break
			}
			flags |= f
		}
		if flags != 0 {
			return fwp.U32(uint32(flags)), nil
		}
	}
	if n, err := strconv.ParseInt(s, 0, 64); err == nil {
		return fwp.Value{Type: t, Uint: uint64(n)}, nil
	}
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		return fwp.Value{}, l.errorf("value %q is no %v", s, t)
	}
	return fwp.Value{Type: t, Uint: n}, nil
}
