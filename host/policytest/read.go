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
	return Step{RecordsOf: -1, Reauthorizes: -1, Incoming: fwps.Incoming{Protocol: fwps.ProtocolTCP, AppID: "/usr/bin/curl", ProcessID: 1000, UserID: 1000, UserKnown: true}}
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
