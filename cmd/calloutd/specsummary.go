package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/calloutd/calloutd/host/conformance"
)

// counts are what --summary prints.
type counts struct {
	Rules         int `json:"rules"`
	Cases         int `json:"cases"`
	Documented    int `json:"documented"`
	Observed      int `json:"observed"`
	Ambiguous     int `json:"ambiguous"`
	NotApplicable int `json:"not_applicable"`
	Elsewhere     int `json:"elsewhere"`
	Failing       int `json:"failing"`
}

// summarize runs every case. Those that fail are named.
func (s *specification) summarize(out io.Writer, asJSON bool) error {
	n := counts{Rules: len(s.rules)}
	by := map[conformance.Status]*int{conformance.Documented: &n.Documented, conformance.Observed: &n.Observed,
		conformance.Ambiguous: &n.Ambiguous, conformance.NotApplicable: &n.NotApplicable}
	var failed []string
	for _, r := range s.rules {
		*by[r.Status]++
		if r.Shown != "" {
			n.Elsewhere++
		}
		for _, c := range s.cases[r.ID] {
			n.Cases++
			var j caseJSON
			if s.run(c, &j); !*j.OK {
				failed = append(failed, j.Why)
			}
		}
	}
	n.Failing = s.failing
	if asJSON {
		return json.NewEncoder(out).Encode(n)
	}
	slices.Sort(failed)
	for _, why := range failed {
		fmt.Fprintln(out, why)
	}
	_, err := fmt.Fprintf(out, `rules           %4d
  documented    %4d
  observed      %4d
  ambiguous     %4d
  not applicable %3d, each with its reason
cases           %4d
  failing       %4d
%d rules have their cases in the suites of other packages, which are Go tests.
`, n.Rules, n.Documented, n.Observed, n.Ambiguous, n.NotApplicable, n.Cases, n.Failing, n.Elsewhere)
	return err
}
