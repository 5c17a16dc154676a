package conformance

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

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
		} else if kind == "token" {
			return fwp.Value{Type: fwp.TokenAccessInformation, Token: &fwp.Token{User: fwp.SID(rest)}}, nil
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
