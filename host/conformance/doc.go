// Package conformance is WFP's ALE as data: a case for every rule of the
// specification, run against the engine, against a naive second arbiter, and
// against whatever else decides like a fwps.Classifier.
//
// A case (testdata/*.txtar) names its rule, gives a policy, callouts and a script
// of socket operations on a simulated network, and the whole trace that must come
// of it: every layer that was asked, every filter and callout with its reason. A
// right outcome for a wrong reason fails. rules/*.yaml list the rules with their
// source and standing.
package conformance

import (
	"cmp"
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/calloutd/calloutd/host/ale"
)

//go:embed rules/*.yaml testdata/*.txtar
var files embed.FS

// A Status says what stands behind a rule.
type Status string

// The statuses of rules/*.yaml.
const (
	Documented    Status = "documented"     // the manual or a header says so
	Observed      Status = "observed"       // shipping code depends on it
	Ambiguous     Status = "ambiguous"      // the sources differ or are silent; the choice is ours
	NotApplicable Status = "not-applicable" // with the reason
)

// A Rule is a rule or scenario of the specification.
type Rule struct {
	ID     string `yaml:"id"`
	Says   string `yaml:"says"` // in one sentence
	Source string `yaml:"source"`
	Status Status `yaml:"status"`
	Reason string `yaml:"reason"` // why it does not apply, or what was chosen
	Shown  string `yaml:"shown"`  // the package whose own suite has its cases; optional
}

// Rules lists every rule, by file and in the order of the specification.
func Rules() ([]Rule, error) {
	names, err := fs.Glob(files, "rules/*.yaml")
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var out []Rule
	for _, name := range names {
		b, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var rules []Rule
		if err := yaml.Load(b, &rules, yaml.WithKnownFields()); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, rules...)
	}
	return out, nil
}

// Cases reads every case, by name.
func Cases() ([]*Case, error) {
	names, err := fs.Glob(files, "testdata/*.txtar")
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var out []*Case
	for _, name := range names {
		b, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		c, err := Parse(name, b)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	slices.SortStableFunc(out, func(a, b *Case) int { return cmp.Compare(a.Name(), b.Name()) })
	return out, nil
}

// Trace runs the case and returns what happened. wrap is nil for the engine
// itself.
func (c *Case) Trace(wrap Wrap) (string, error) { return c.trace(wrap, nil) }

// trace runs the case with other options of the enforcer.
func (c *Case) trace(wrap Wrap, change func(*ale.Options)) (string, error) {
	w, err := newWorld(c, wrap, change)
	if err != nil {
		return "", err
	}
	err = w.run(c.script)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.trace.String(), err
}

// Check runs the case and says where its trace differs from the wanted one.
func (c *Case) Check(wrap Wrap) error {
	got, err := c.Trace(wrap)
	if err != nil {
		return err
	}
	return c.Compare(got)
}

// Compare says where a trace differs from the wanted one.
func (c *Case) Compare(got string) error {
	if got == c.Want {
		return nil
	}
	g, w := strings.Split(got, "\n"), strings.Split(c.Want, "\n")
	for i := range max(len(g), len(w)) {
		if i >= len(g) || i >= len(w) || g[i] != w[i] {
			return fmt.Errorf("%s: %s: line %d of the trace is\n\t%s\nwant\n\t%s\nthe whole trace:\n%s", c.File, c.Rule, i+1, at(g, i), at(w, i), got)
		}
	}
	return nil
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(nothing)"
}

// Run runs every case as a subtest named by its rule. wrap is nil for the engine
// itself.
func Run(t *testing.T, wrap Wrap) {
	cases, err := Cases()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Name(), func(t *testing.T) {
			if err := c.Check(wrap); err != nil {
				t.Error(err)
			}
		})
	}
}

// Name is the file's, which begins with the rule's.
func (c *Case) Name() string {
	return strings.TrimSuffix(strings.TrimPrefix(c.File, "testdata/"), ".txtar")
}
