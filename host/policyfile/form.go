package policyfile

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// A form is what a value may look like.
type form interface{ isForm() }

type (
	// text is a printable scalar that is not empty.
	text struct{}
	// identifier is the name that an object gets.
	identifier struct{ kind string }
	// reference is the name of an object that the file declares.
	reference struct{ kind string }
	// choice is one of some words. elsewhere is optional: what to say of a word that only
	// others know.
	choice struct {
		what      string
		words     func() []string
		elsewhere func(string) string
	}
	truth struct{}
	// number is an integer of a range.
	number struct{ least, most uint64 }
	// listen is an address and a port.
	listen struct{ such string }
	// prefix is an address or a network.
	prefix struct{}
	// list is a sequence of mappings.
	list struct{ of *mapping }
	// several is a sequence of scalars, each once.
	several struct{ of form }
	// inner is a mapping in a mapping.
	inner struct{ of *mapping }
	// either is a scalar of one form or a mapping. what is both in words, for a scalar that is a number.
	either struct {
		scalar form
		or     *mapping
		what   string
	}
	// values is what a condition compares with; its forms depend on the field.
	values struct{}
	// anything is taken as it is.
	anything struct{}
)

func (text) isForm()       {}
func (identifier) isForm() {}
func (reference) isForm()  {}
func (choice) isForm()     {}
func (truth) isForm()      {}
func (number) isForm()     {}
func (listen) isForm()     {}
func (prefix) isForm()     {}
func (list) isForm()       {}
func (several) isForm()    {}
func (inner) isForm()      {}
func (either) isForm()     {}
func (values) isForm()     {}
func (anything) isForm()   {}

// check reports a value that does not have the form.
func (r *reader) check(key string, form form, n *yaml.Node) bool {
	bad := func(near, want string) bool {
		r.fail(at(n), near, "%s: expected %s, found %s", key, want, describe(n))
		return false
	}
	switch form := form.(type) {
	case text:
		if !isText(n) {
			return bad("", "text")
		}
	case identifier:
		if !isText(n) || !isIdentifier(n.Value) {
			return bad("", "a name of letters, digits, dots, dashes and underscores")
		}
		if !r.declare(form.kind, n.Value) {
			r.fail(at(n), "", "%s %q is declared already", form.kind, n.Value)
			return false
		}
	case reference:
		if known := r.names[form.kind]; !isText(n) || !r.declared[declaration{form.kind, n.Value}] {
			near := r.nearest(n.Value, known)
			return bad(near, "a "+form.kind+" of this file"+oneOf(known, near))
		}
	case choice:
		if known := form.words(); !isText(n) || !slices.Contains(known, n.Value) {
			if form.elsewhere != nil {
				if hint := form.elsewhere(n.Value); hint != "" {
					return bad("", form.what+hint)
				}
			}
			near := r.nearest(n.Value, known)
			return bad(near, form.what+oneOf(known, near))
		}
	case truth:
		if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
			return bad("", "true or false")
		}
	case number:
		if !form.holds(n) {
			return bad("", form.String())
		}
	case listen:
		if _, err := netip.ParseAddrPort(n.Value); err != nil || !isText(n) {
			return bad("", "an address and a port such as "+form.such)
		}
	case prefix:
		if p, near := parsePrefix(n.Value); !isText(n) || !p.IsValid() {
			return bad(near, form.String())
		}
	case several:
		if n.Kind != yaml.SequenceNode {
			return bad("", "a list")
		}
		return r.several(key, form.of, n)
	case list:
		if n.Kind != yaml.SequenceNode {
			return bad("", "a list")
		}
	case inner:
		if n.Kind != yaml.MappingNode { // What stands there may be a secret (credentials).
			r.fail(at(n), "", "%s: expected a mapping with %s", key, strings.Join(form.of.names(), ", "))
			return false
		}
	case either:
		if n.Kind == yaml.MappingNode {
			return true
		}
		if f, ok := form.scalar.(number); ok && !f.holds(n) {
			return bad("", form.what)
		}
		return r.check(key, form.scalar, n)
	}
	return true // The rest depends on more than the value.
}

// several checks the items of a list, each of which may stand there once.
func (r *reader) several(key string, form form, n *yaml.Node) bool {
	ok, lines := true, map[string]int{}
	for _, item := range n.Content {
		if r.full() {
			return false
		}
		if !r.check(key, form, item) {
			ok = false
			continue
		}
		if first := lines[item.Value]; first > 0 {
			r.fail(at(item), "", "%s: %q stands twice, first in line %d", key, short(item.Value), first)
			ok = false
		}
		lines[item.Value] = item.Line
	}
	return ok
}

func (prefix) String() string { return "an address or a network such as 192.0.2.0/24" }

func (f number) holds(n *yaml.Node) bool {
	v, ok := integer(n)
	return ok && v >= f.least && v <= f.most
}

func (f number) String() string {
	if f.least == f.most {
		return strconv.FormatUint(f.least, 10)
	}
	return "a number from " + strconv.FormatUint(f.least, 10) + " to " + strconv.FormatUint(f.most, 10)
}
