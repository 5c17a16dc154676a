package policyfile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/internal/oneline"
)

// A Problem is one mistake, or a warning.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`   // from 1
	Column  int    `json:"column"` // from 1, in characters
	Message string `json:"message"`
	Nearest string `json:"did_you_mean,omitempty"` // the valid name most like what was written
	Warning bool   `json:"warning,omitempty"`      // the engine takes it, but it can hardly be meant
}

func (p Problem) Error() string {
	s := fmt.Sprintf("%s:%d:%d: %s%s", ShownPath(p.File), p.Line, p.Column, map[bool]string{true: "warning: "}[p.Warning], p.Message)
	if p.Nearest != "" {
		s += fmt.Sprintf(" (did you mean %q?)", p.Nearest)
	}
	return s
}

// ShownPath is a path as it stands in a line of text: one that would break the line, or move
// the cursor, is quoted.
func ShownPath(path string) string { return oneline.Quote(path) }

// Errors are all mistakes of a policy, in the order of their places: first its
// own, then those of the files it names.
type Errors []Problem

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, p := range e {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// MaxProblems is how many mistakes of one policy are reported.
const MaxProblems = 100

// An object is something that a mistake can be about. The field is as in
// fwpm.ObjectError, or empty for the whole.
type object struct{ kind, id, field string }

type place struct{ line, column int }

func at(n *yaml.Node) place { return place{max(1, n.Line), max(1, n.Column)} }

type problems struct {
	file string
	list Errors
}

func (ps *problems) fail(at place, nearest, format string, args ...any) {
	ps.failIn(ps.file, at, nearest, format, args...)
}

// failIn is fail for a file that the policy names.
func (ps *problems) failIn(file string, at place, nearest, format string, args ...any) {
	p := Problem{File: file, Line: at.line, Column: at.column, Message: fmt.Sprintf(format, args...), Nearest: nearest}
	if !ps.full() && !slices.Contains(ps.list, p) {
		ps.list = append(ps.list, p)
	}
}

// full says that nobody will read of further mistakes.
func (ps *problems) full() bool { return len(ps.list) > MaxProblems }

// nearest is the hint for a mistake that somebody will read.
func (ps *problems) nearest(s string, words []string) string {
	if ps.full() {
		return ""
	}
	return nearest(s, words)
}

func (ps *problems) sorted() Errors {
	slices.SortStableFunc(ps.list, func(a, b Problem) int {
		if (a.File == ps.file) != (b.File == ps.file) {
			return map[bool]int{true: -1, false: 1}[a.File == ps.file]
		}
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if ps.full() {
		ps.list[MaxProblems].Message, ps.list[MaxProblems].Nearest = "there are more mistakes than are listed", ""
	}
	return ps.list
}

// At gives an error about an object of the policy its place: kind is
// "callout", "proxy" and so on, field the key that is to blame. What has no
// place gets that of the object, and what is not in the file the file's name.
func (f *File) At(kind, id, field string, err error) error {
	for _, o := range []object{{kind, id, field}, {kind, id, ""}} {
		if p, ok := f.places[o]; ok {
			return Problem{File: f.fileOf(o), Line: p.line, Column: p.column, Message: err.Error()}
		}
	}
	return fmt.Errorf("%s: %s %q: %w", ShownPath(f.name), kind, id, err)
}

// Place is where a filter stands, as file:line; empty for one of another policy.
func (f *File) Place(id fwpm.FilterID) string {
	o := object{"filter", fmt.Sprint(id), ""}
	p, ok := f.places[o]
	if !ok {
		return ""
	}
	return fmt.Sprintf("%s:%d", ShownPath(f.fileOf(o)), p.line)
}

// Entry is where a filter begins, as file:line:column: the same for the two families of
// one filter of the file, and for no other. It is empty for one of another policy.
func (f *File) Entry(id fwpm.FilterID) string {
	o := object{"filter", fmt.Sprint(id), ""}
	p, ok := f.places[o]
	if !ok {
		return ""
	}
	return fmt.Sprintf("%s:%d:%d", ShownPath(f.fileOf(o)), p.line, p.column)
}

// Several reports whether policies of others are beside it (Beside).
func (f *File) Several() bool { return len(f.files) > 0 }

// fileOf is the file that an object stands in.
func (f *File) fileOf(o object) string { return cmp.Or(f.files[o], f.name) }
