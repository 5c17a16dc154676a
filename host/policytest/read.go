package policytest

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyfile"
)

// Parse reads a file of cases; name is how errors call it. It is strict, so that
// a case that is misspelt cannot pass. The error is policyfile.Errors.
func Parse(name string, src []byte) (*Suite, error) {
	root, err := policyfile.Document(name, src, "a file of cases", "version, with, cases, tables, refusals")
	if err != nil {
		return nil, err
	}
	r := &reader{Suite: &Suite{File: name, src: src}, lines: lines(src)}
	r.root(root)
	if len(r.problems) > 0 {
		return nil, r.sorted()
	}
	return r.Suite, nil
}

// A reader reads one file.
type reader struct {
	*Suite
	problems policyfile.Errors
	lines    []int    // where each line begins, in bytes
	with     []string // of the case that is read
}

// A value is what stands behind a key.
type value struct {
	key string
	*yaml.Node
}

func place(n *yaml.Node) Place { return Place{max(1, n.Line), max(1, n.Column)} }

func (r *reader) fail(n *yaml.Node, near, format string, args ...any) {
	if len(r.problems) < policyfile.MaxProblems {
		r.problems = append(r.problems, r.problem(place(n), near, fmt.Sprintf(format, args...)))
	}
}

func (r *reader) bad(v value, want string, known ...string) {
	near := policyfile.Nearest(v.Value, known)
	if near == "" && len(known) > 0 {
		want += " (" + strings.Join(known, ", ") + ")"
	}
	r.fail(v.Node, near, "%s: expected %s, found %s", v.key, want, describe(v.Node))
}

func (r *reader) sorted() policyfile.Errors {
	slices.SortStableFunc(r.problems, func(a, b policyfile.Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return r.problems
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
	}
	const most = 60
	if s := []rune(n.Value); len(s) > most {
		return fmt.Sprintf("%q...", string(s[:most]))
	}
	return fmt.Sprintf("%q", n.Value)
}

// mapping reads a mapping whose keys are known, and reports what is not right.
func (r *reader) mapping(n *yaml.Node, what string, known []string) []value {
	if n.Kind != yaml.MappingNode {
		r.fail(n, "", "expected %s with %s, found %s", what, strings.Join(known, ", "), describe(n))
		return nil
	}
	var out []value
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		at := slices.IndexFunc(out, func(o value) bool { return o.key == k.Value })
		switch {
		case at >= 0:
			r.fail(k, "", "key %q stands twice", k.Value)
		case !slices.Contains(known, k.Value):
			near, hint := policyfile.Nearest(k.Value, known), ""
			if near == "" {
				hint = " (" + strings.Join(known, ", ") + ")"
			}
			r.fail(k, near, "unknown key %s, expected a key of %s%s", describe(k), what, hint)
		default:
			out = append(out, value{k.Value, v})
		}
	}
	return out
}

func (r *reader) list(v value) []*yaml.Node {
	if v.Kind != yaml.SequenceNode {
		r.bad(v, "a list")
		return nil
	}
	return v.Content
}

func get(vs []value, key string) (value, bool) {
	i := slices.IndexFunc(vs, func(v value) bool { return v.key == key })
	if i < 0 {
		return value{}, false
	}
	return vs[i], true
}

// ordinary is the connection that a case differs from.
func ordinary() Step {
	return Step{RecordsOf: -1, Incoming: fwps.Incoming{Protocol: fwps.ProtocolTCP, AppID: "/usr/bin/curl", ProcessID: 1000, UserID: 1000, UserKnown: true}}
}

func (r *reader) root(n *yaml.Node) {
	vs := r.mapping(n, "the file", []string{"version", "policy", "with", "defaults", "cases", "tables", "refusals"})
	if v, ok := get(vs, "version"); !ok && n.Kind == yaml.MappingNode {
		r.fail(n, "", "version is missing: this format is version 1")
	} else if ok && v.Value != "1" {
		r.bad(v, "1")
	}
	base := ordinary()
	for _, v := range vs {
		switch v.key {
		case "policy":
			r.Policy, _ = r.text(v)
		case "with":
			r.With = r.words(v)
			r.with = r.With
		case "defaults":
			r.defaults(v, &base)
		}
	}
	for _, v := range vs {
		switch v.key {
		case "cases":
			for _, c := range r.list(v) {
				r.oneCase(c, base)
			}
		case "tables":
			for _, t := range r.list(v) {
				r.table(t, base)
			}
		case "refusals":
			for _, c := range r.list(v) {
				r.refusal(c)
			}
		}
	}
	if len(r.Cases) == 0 && len(r.problems) == 0 {
		r.fail(n, "", "there are no cases: expected cases, tables or refusals")
	}
	r.unique()
}

// beside reads what is beside the policy of a case or table; the function returns to
// that of the file.
func (r *reader) beside(vs []value) func() {
	if v, ok := get(vs, "with"); ok {
		r.with = r.words(v)
	}
	return func() { r.with = r.With }
}

func (r *reader) words(v value) (out []string) {
	for _, n := range r.list(v) {
		if word, ok := r.text(value{v.key, n}); ok {
			out = append(out, word)
		}
	}
	return out
}

func (r *reader) unique() {
	seen := map[string]Place{}
	for _, c := range r.Cases {
		if first, twice := seen[c.Name]; twice {
			r.problems = append(r.problems, r.problem(c.Place, "", fmt.Sprintf("case %q stands twice, first in line %d", c.Name, first.Line)))
		}
		seen[c.Name] = c.Place
	}
}

func (r *reader) defaults(v value, base *Step) {
	known := slices.DeleteFunc(names(connectionKeys), func(s string) bool { return s == "records_of" })
	for _, d := range r.mapping(v.Node, "defaults", known) {
		find(connectionKeys, d.key).read(r, d, base)
	}
}

func (r *reader) oneCase(n *yaml.Node, base Step) {
	vs := r.mapping(n, "a case", names(connectionKeys, "name", "with", "expect", "steps"))
	if vs == nil {
		return
	}
	defer r.beside(vs)()
	c := Case{Place: place(n), With: r.with}
	if v, ok := get(vs, "name"); ok {
		c.Name, _ = r.text(v)
	} else {
		r.fail(n, "", "name is missing")
	}
	steps, several := get(vs, "steps")
	if !several {
		c.Steps = []Step{r.step(n, vs, base, nil)}
		c.Steps[0].Name = ""
		r.Cases = append(r.Cases, c)
		return
	}
	for _, v := range vs {
		switch k := find(connectionKeys, v.key); {
		case v.key == "expect", k != nil && k.read == nil:
			r.fail(v.Node, "", "%s: a case with steps has it in each step", v.key)
		case k != nil:
			k.read(r, v, &base)
		}
	}
	for _, s := range r.list(steps) {
		if vs := r.mapping(s, "a step", names(connectionKeys, "name", "expect")); vs != nil {
			c.Steps = append(c.Steps, r.step(s, vs, base, c.Steps))
		}
	}
	if len(c.Steps) == 0 && steps.Kind == yaml.SequenceNode {
		r.fail(steps.Node, "", "steps: the list is empty, so the case tests nothing")
	}
	r.Cases = append(r.Cases, c)
}

// step reads one connection; before are the earlier ones of the case.
func (r *reader) step(n *yaml.Node, vs []value, base Step, before []Step) Step {
	s := base
	s.Place, s.Want = place(n), nil
	for _, v := range vs {
		switch k := find(connectionKeys, v.key); {
		case v.key == "name":
			s.Name = v.Value
		case v.key == "records_of":
			r.recordsOf(v, &s, before)
		case v.key == "expect":
			for _, e := range r.mapping(v.Node, "expect", names(expectationKeys)) {
				find(expectationKeys, e.key).read(r, e, &s)
			}
		case k != nil:
			k.read(r, v, &s)
		}
	}
	r.complete(n, &s)
	return s
}

func (r *reader) recordsOf(v value, s *Step, before []Step) {
	var known []string
	for i, b := range before {
		if b.Name == v.Value {
			s.RecordsOf = i
			return
		}
		if b.Name != "" {
			known = append(known, b.Name)
		}
	}
	if len(known) == 0 {
		r.fail(v.Node, "", "records_of: expected the name of an earlier step, and none has one")
		return
	}
	r.bad(v, "the name of an earlier step", known...)
}

// complete looks at a step as a whole.
func (r *reader) complete(n *yaml.Node, s *Step) {
	in := &s.Incoming
	switch {
	case !s.toGiven && s.RecordsOf < 0:
		r.fail(n, "", "to is missing: where the connection goes, such as 198.51.100.7:80")
	case in.Inbound && !in.Local.IsValid():
		r.fail(n, "", "from is missing: inbound needs the address of who connects")
	case (in.Inbound || s.Listen) && s.RecordsOf >= 0:
		r.fail(n, "", "records_of: only a connection that the program makes has records set")
	case in.Inbound && s.Listen:
		r.fail(n, "", "inbound and listen exclude each other")
	case in.Local.IsValid() && in.Remote.IsValid() && in.Local.Addr().Is4() != in.Remote.Addr().Is4():
		r.fail(n, "", "from %s and to %s are of two address families", in.Local, in.Remote)
	}
	if !slices.ContainsFunc(s.Want, func(w Want) bool { return w.Key == "action" || w.Key == "sound" }) {
		r.fail(n, "", "expect needs an action: permit, block or redirect")
	}
}

// lines are the offsets at which the lines of a text begin.
func lines(src []byte) []int {
	out := []int{0}
	for i := 0; ; {
		n := bytes.IndexByte(src[i:], '\n')
		if n < 0 {
			return out
		}
		i += n + 1
		out = append(out, i)
	}
}

// Read reads a file of cases, no more of one that is too long than Parse needs to
// see that it is.
func Read(in io.Reader) ([]byte, error) {
	return io.ReadAll(io.LimitReader(in, policyfile.MaxSize+1))
}
