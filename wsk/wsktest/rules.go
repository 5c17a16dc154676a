// Package wsktest is the conformance suite of Winsock Kernel: a case for each rule
// that fails if the rule is broken. Most cases are scripts over real sockets and a
// real engine; what no script can show is Go. The rules stand in host/conformance.
package wsktest

import (
	"bytes"
	"embed"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/tools/txtar"
)

//go:embed testdata/*.txtar
var files embed.FS

// A Case shows one or more rules.
type Case struct {
	// Name begins with the rules' IDs and goes on with a sentence.
	Name  string
	Rules []string

	file   string
	line   int // of the first line of the script
	script string
	code   string // the name of a Go case, if there is no script
}

// Cases are all cases: the scripts by file, then the Go cases.
func Cases() ([]Case, error) {
	names, err := files.ReadDir("testdata")
	if err != nil {
		return nil, err
	}
	var cases []Case
	for _, n := range names {
		text, err := files.ReadFile("testdata/" + n.Name())
		if err != nil {
			return nil, err
		}
		cs, err := parseCases(n.Name(), text)
		if err != nil {
			return nil, err
		}
		cases = append(cases, cs...)
	}
	for _, name := range sorted(coded) {
		cases = append(cases, Case{Name: name, Rules: ids(name), code: name})
	}
	return cases, nil
}

func sorted[V any](m map[string]V) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func parseCases(file string, text []byte) ([]Case, error) {
	a := txtar.Parse(text)
	line := 1 + bytes.Count(a.Comment, []byte("\n"))
	var cases []Case
	for _, f := range a.Files {
		line++ // the marker
		c := Case{Name: f.Name, Rules: ids(f.Name), file: file, line: line, script: string(f.Data)}
		if len(c.Rules) == 0 {
			return nil, fmt.Errorf("%s:%d: %q does not begin with the ID of a rule", file, line-1, f.Name)
		}
		cases = append(cases, c)
		line += bytes.Count(f.Data, []byte("\n"))
	}
	return cases, nil
}

// ids are the leading words of a name that look like IDs of rules.
func ids(name string) (out []string) {
	for _, w := range strings.Fields(name) {
		w = strings.TrimSuffix(w, ",")
		if !isID(w) {
			break
		}
		out = append(out, w)
	}
	return out
}

func isID(w string) bool {
	i := strings.LastIndexByte(w, '-')
	return i > 0 && strings.ToUpper(w) == w && len(w) > i+1 && strings.Trim(w[i+1:], "0123456789") == ""
}
