package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/calloutd/calloutd/host/conformance"
)

func (s *specification) explain(out io.Writer, asJSON bool) error {
	p := paintFor(out)
	for i, r := range s.rules {
		j := s.json(r)
		for n, c := range s.cases[r.ID] {
			s.run(c, &j.Cases[n])
		}
		if asJSON {
			if err := json.NewEncoder(out).Encode(j); err != nil {
				return err
			}
			continue
		}
		if i > 0 {
			fmt.Fprintln(out)
		}
		if _, err := io.WriteString(out, s.text(r, j, p)); err != nil {
			return err
		}
	}
	return nil
}

// text is a rule for people.
func (s *specification) text(r conformance.Rule, j ruleJSON, p painter) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s (%s)\n  %s\n", r.ID, r.Status, r.Source, r.Says)
	if r.Reason != "" {
		fmt.Fprintf(&b, "  %s\n", r.Reason)
	}
	if r.Shown != "" {
		fmt.Fprintf(&b, "  The suite of %s shows it: go test ./%s -run '/%s\\b'\n", r.Shown, r.Shown, r.ID)
	}
	for n, c := range s.cases[r.ID] {
		word := p.paint("32", "ok")
		if !*j.Cases[n].OK {
			word = p.paint("1;31", "fails")
		}
		fmt.Fprintf(&b, "\n%s %s: %s\n%s", word, c.Name(), c.Rule, indent(c.Setup()+"-- trace --\n"+j.Cases[n].Trace))
		if j.Cases[n].Why != "" {
			fmt.Fprintf(&b, "  %s\n", strings.TrimSpace(j.Cases[n].Why))
		}
	}
	return b.String()
}

func indent(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString("    " + line)
	}
	return b.String()
}
