package policyfile

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v4"
)

// identifiers is what names of objects look like: they stand in log lines and
// in ${proxy:ID}.
const identifiers = `^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`

var isIdentifier = regexp.MustCompile(identifiers).MatchString

// fields are the keys and values of a mapping.
type fields struct {
	node *yaml.Node
	keys map[string]*yaml.Node
	raw  map[string]*yaml.Node // the values as they stand there
	vals map[string]*yaml.Node // those that have the right form
}

// mapping reads a mapping and reports every key and value that is not right.
func (r *reader) mapping(n *yaml.Node, m *mapping) fields {
	f := fields{n, map[string]*yaml.Node{}, map[string]*yaml.Node{}, map[string]*yaml.Node{}}
	if n.Kind != yaml.MappingNode {
		r.fail(at(n), "", "expected a mapping with %s, found %s", strings.Join(m.names(), ", "), describe(n))
		return f
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		known := m.key(k.Value)
		switch {
		case k.Kind != yaml.ScalarNode:
			r.fail(at(k), "", "expected a key%s, found %s", oneOf(m.names(), ""), describe(k))
		case known == nil:
			if here := othersFlags[k.Value]; here != "" {
				r.fail(at(k), "", "unknown key %q: %s", k.Value, here)
				break
			}
			near := r.nearest(k.Value, m.names())
			r.fail(at(k), near, "unknown key %q, expected a key of this mapping%s", short(k.Value), oneOf(m.names(), near))
		case f.keys[k.Value] != nil:
			r.fail(at(k), "", "key %q stands twice, first in line %d", k.Value, f.keys[k.Value].Line)
		default:
			f.keys[k.Value], f.raw[k.Value] = k, v
			if r.check(known.name, known.form, v) {
				f.vals[k.Value] = v
			}
		}
	}
	for _, k := range m.keys {
		if k.required && f.keys[k.name] == nil {
			r.fail(at(n), "", "%s is missing%s", k.name, mustBe(k.form))
		}
	}
	return f
}

func (m *mapping) key(name string) *key {
	i := slices.IndexFunc(m.keys, func(k key) bool { return k.name == name })
	if i < 0 {
		return nil
	}
	return &m.keys[i]
}

func (m *mapping) names() []string {
	var names []string
	for _, k := range m.keys {
		names = append(names, k.name)
	}
	return names
}

// A declaration is a name that an object of a kind has.
type declaration struct{ kind, name string }

// declare gives a name to an object, which must be the first to have it.
func (r *reader) declare(kind, name string) bool {
	if d := (declaration{kind, name}); !r.declared[d] {
		r.declared[d], r.names[kind] = true, append(r.names[kind], name)
		return true
	}
	return false
}

// oneOf lists what is known where no word is near what was written: then one
// hint says more than a list.
func oneOf(known []string, near string) string {
	const most = 12
	switch {
	case near != "":
		return ""
	case len(known) == 0:
		return ", which has none"
	case len(known) > most:
		return fmt.Sprintf(" (%s and %d more, see calloutd schema)", strings.Join(known[:most], ", "), len(known)-most)
	}
	return " (" + strings.Join(known, ", ") + ")"
}

// isText says that a scalar was written as text, not as a number, and prints
// on one line.
func isText(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Tag == "!!str" && n.Value != "" && !strings.ContainsFunc(n.Value, func(c rune) bool { return !unicode.IsPrint(c) })
}

// zeroed reports whether a number may be read as octal or as decimal: as YAML has it,
// 0443 is 291.
func zeroed(s string) bool { return len(s) > 1 && s[0] == '0' && s[1] >= '0' && s[1] <= '9' }

func integer(n *yaml.Node) (uint64, bool) {
	var v uint64
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || zeroed(n.Value) || n.Decode(&v) != nil {
		return 0, false
	}
	return v, true
}

// describe says what stands there instead of what was expected.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Tag == "!!null":
		return "nothing"
	case n.Tag == "!!int" || n.Tag == "!!float":
		return "the number " + short(n.Value)
	}
	return strconv.Quote(short(n.Value))
}

func (f fields) text(key string) string {
	if n := f.vals[key]; n != nil {
		return n.Value
	}
	return ""
}

func (f fields) number(key string) uint64 {
	if n := f.vals[key]; n != nil {
		v, _ := integer(n)
		return v
	}
	return 0
}

func (f fields) truth(key string) bool {
	n := f.vals[key]
	var v bool
	return n != nil && n.Decode(&v) == nil && v
}

// inner reads a mapping in this one; it is empty if there is none.
func (r *reader) inner(f fields, key string, m *mapping) fields {
	if n := f.vals[key]; n != nil {
		return r.mapping(n, m)
	}
	return fields{}
}

// words are the items of a list of scalars.
func (f fields) words(key string) []string {
	var words []string
	for _, n := range f.list(key) {
		words = append(words, n.Value)
	}
	return words
}

func (f fields) list(key string) []*yaml.Node {
	if n := f.vals[key]; n != nil {
		return n.Content
	}
	return nil
}

// place remembers where an object and its keys stand.
func (r *reader) place(f fields, kind, id string) {
	r.places[object{kind, id, ""}] = at(f.node)
	for name, v := range f.raw {
		r.places[object{kind, id, name}] = at(v)
	}
}

// mustBe is what a key has to be where there is one possibility.
func mustBe(f form) string {
	if n, ok := f.(number); ok && n.least == n.most {
		return fmt.Sprintf(": expected %d", n.least)
	}
	return ""
}
