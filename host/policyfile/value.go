package policyfile

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// Empty is the word for FWP_EMPTY: the field is not known (BFE-CND-06).
const Empty = "FWP_EMPTY"

// A valueType is what the values of a field look like.
type valueType struct {
	vocabulary
	data    fwp.DataType // of a condition's value, prefixes and ranges apart
	address bool
	host    bool   // a name of the DNS
	what    string // for people
	sample  string // a value that the type has
	last    string // another one, not before it
}

// typeOf derives it from the field's data type. A field of a type that is not
// here cannot be used: TestEveryFieldHasAType.
func typeOf(c fwpm.ConditionID, l fwpm.LayerID) valueType {
	t := valueType{data: c.DataType(l), vocabulary: vocabularyOf(c, l)}
	switch {
	case c.IsAddress() && l.IsV6():
		t.address = true
		t.what, t.sample, t.last = "an address, a prefix or a range such as 2001:db8::/32", "2001:db8::1", "2001:db8::9"
	case c.IsAddress():
		t.address = true
		t.what, t.sample, t.last = "an address, a prefix or a range such as 192.0.2.0/24", "192.0.2.1", "192.0.2.9"
	case t.noun != "":
		t.what, t.sample, t.last = t.noun+oneOf(t.words(), "")+" or a number", "1", "9"
	case c == fwpm.ConditionIPLocalPort || c == fwpm.ConditionIPRemotePort:
		t.what, t.sample, t.last = "a port such as 443 or a range such as 8000-8999", "8000", "8999"
	case c == fwpm.ConditionALEAppID || c == fwpm.ConditionALEOriginalAppID:
		t.what, t.sample, t.last = "the path of a program such as /usr/bin/curl", "/usr/bin/curl", "/usr/bin/wget"
	case c == fwpm.ConditionPeerName:
		t.host, t.what, t.sample, t.last = true, "a name such as example.com", "example.com", "example.org"
	case t.data.Unsigned():
		t.what, t.sample, t.last = fmt.Sprintf("a number from 0 to %d or a range of them", t.data.Max()), "1", "9"
	case t.text():
		t.what, t.sample, t.last = "a text", "a", "b"
	case t.data == fwp.TokenAccessInformation:
		t.data = fwp.SecurityDescriptorType // BFE-CND-03
		t.what, t.sample = "a user of this system (name or number), group:NAME, a SID or a security descriptor", "0"
	case t.data == fwp.SIDType:
		t.what, t.sample = "a SID such as S-1-15-2-1", "S-1-15-2-1"
	}
	return t
}

func (t valueType) text() bool { return t.data == fwp.ByteBlob || t.data == fwp.UnicodeString }

// A valueError says what was expected instead of a value, or of one item of it.
type valueError struct {
	want, nearest string
	item          *yaml.Node
}

func (e *valueError) node(whole *yaml.Node) *yaml.Node {
	if e.item != nil {
		return e.item
	}
	return whole
}

// operand reads one value. The match type is empty or what is written.
func (t valueType) operand(n *yaml.Node, match string) (operand, *valueError) {
	if t.bits && n.Kind == yaml.SequenceNode {
		return t.set(n)
	}
	if n.Tag != "!!int" && !isText(n) {
		return operand{}, &valueError{want: t.what}
	}
	if n.Value == Empty {
		return operand{}, only(match, Empty, "equal")
	}
	low, high, ranged := strings.Cut(n.Value, "-")
	ranged = ranged && low != "" && high != ""
	switch {
	case match == "range", match == "" && ranged && (t.address || t.data.Unsigned()):
		return t.between(low, high)
	case t.text():
		return t.path(n, match)
	}
	o := t.one(n.Value)
	switch {
	case o.prefix.IsValid() && o.prefix != o.prefix.Masked():
		return o, &valueError{want: t.what, nearest: o.prefix.Masked().String()}
	case o.prefix.IsValid():
		return o, only(match, "a prefix", "equal", "not_equal")
	case !o.isAddress() && o.plain.Type == fwp.Empty:
		near := nearest(n.Value, t.words())
		if near != "" {
			return o, &valueError{want: t.noun + " or a number", nearest: near}
		}
		hint, near := t.elsewhere(n.Value)
		return o, &valueError{want: t.what + hint, nearest: near}
	}
	return o, nil
}

// only is for values that few match types take.
func only(match, what string, these ...string) *valueError {
	for _, m := range append(these, "") {
		if m == match {
			return nil
		}
	}
	return &valueError{want: "match type " + strings.Join(these, " or ") + " for " + what}
}

// set reads a list of flags.
func (t valueType) set(n *yaml.Node) (operand, *valueError) {
	sum := fwp.Value{Type: t.data}
	for _, item := range n.Content {
		o, err := t.operand(item, "flags_all_set")
		if err != nil {
			err.item = item
			return o, err
		}
		sum.Uint |= o.plain.Uint
	}
	return operand{plain: sum}, nil
}

func (t valueType) between(low, high string) (operand, *valueError) {
	t.names = nil // Words have no order.
	a, b := t.one(strings.TrimSpace(low)), t.one(strings.TrimSpace(high))
	nearest := ""
	switch {
	case a.low.IsValid() && b.low.IsValid() && a.is4() == b.is4() && !b.low.Less(a.low):
		return operand{low: a.low, high: b.low}, nil
	case a.plain.Type != fwp.Empty && b.plain.Type != fwp.Empty && a.plain.Uint <= b.plain.Uint && a.plain.Text <= b.plain.Text:
		return operand{plain: fwp.Between(a.plain, b.plain)}, nil
	case (a.low.IsValid() || a.plain.Type != fwp.Empty) && (b.low.IsValid() || b.plain.Type != fwp.Empty) && a.is4() == b.is4():
		nearest = strings.TrimSpace(high) + "-" + strings.TrimSpace(low) // from above
	}
	return operand{}, &valueError{want: "a range such as " + t.sample + "-" + t.last, nearest: nearest}
}

// one reads a single word. The zero operand means that it is none.
func (t valueType) one(s string) operand {
	if t.address {
		return parseAddress(s)
	}
	for _, n := range t.names {
		if n.word == s {
			return operand{plain: fwp.Value{Type: t.data, Uint: n.value}}
		}
	}
	if t.text() && s != "" {
		return operand{plain: fwp.Value{Type: t.data, Text: s}}
	}
	if v, err := strconv.ParseUint(s, 0, 64); err == nil && !zeroed(s) && t.data.Unsigned() && v <= t.data.Max() {
		return operand{plain: fwp.Value{Type: t.data, Uint: v}}
	}
	switch {
	case t.data == fwp.SecurityDescriptorType:
		return operand{plain: who(s)}
	case t.data == fwp.SIDType && fwp.SID(s).Valid():
		return operand{plain: fwp.Value{Type: t.data, Text: s}}
	}
	return operand{}
}
