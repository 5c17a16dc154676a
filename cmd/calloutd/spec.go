package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/conformance"
)

func newSpec() *cobra.Command {
	var summary, asJSON bool
	cmd := &cobra.Command{
		Use:   "spec [RULE...]",
		Short: "List the rules of WFP and Winsock Kernel, explain one and run its cases",
		Long: `Spec lists the rules of WFP's ALE and of Winsock Kernel that calloutd keeps, what stands
behind each and which cases show it. With a rule, or the beginning of some such as ARB, it
says more and runs the cases: what each begins with, and everything that then happened,
with the reasons.

It ends with code 1 when a case fails.`,
		Example: `  calloutd spec
  calloutd spec ARB-06
  calloutd spec --summary`,
		RunE: func(cmd *cobra.Command, ids []string) error {
			s, err := readSpec(ids)
			if err != nil {
				return err
			}
			print := s.explain
			switch {
			case summary:
				print = s.summarize
			case len(ids) == 0:
				print = s.list
			}
			return s.print(print, cmd.OutOrStdout(), asJSON)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			s, err := readSpec(nil)
			if err != nil {
				return nil, cobra.ShellCompDirectiveError
			}
			var ids []cobra.Completion
			for _, r := range s.rules {
				ids = append(ids, cobra.CompletionWithDesc(r.ID, r.Says))
			}
			return ids, cobra.ShellCompDirectiveNoFileComp
		},
	}
	cmd.Flags().BoolVar(&summary, "summary", false, "run all cases and print counts")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// A specification is the rules that were asked for, with their cases.
type specification struct {
	rules   []conformance.Rule
	cases   map[string][]*conformance.Case // by rule
	failing int                            // of those that were run
}

// readSpec finds the rules that ids name or begin, all for none.
func readSpec(ids []string) (*specification, error) {
	rules, err := conformance.Rules()
	if err != nil {
		return nil, err
	}
	cases, err := conformance.Cases()
	if err != nil {
		return nil, err
	}
	s := &specification{rules: rules, cases: map[string][]*conformance.Case{}}
	for _, c := range cases {
		s.cases[c.ID] = append(s.cases[c.ID], c)
	}
	if len(ids) == 0 {
		return s, nil
	}
	s.rules = nil
	for _, id := range ids {
		found := named(rules, strings.ToUpper(id))
		if len(found) == 0 {
			return nil, fmt.Errorf("there is no rule %q: calloutd spec lists them", id)
		}
		s.rules = append(s.rules, found...)
	}
	return s, nil
}

// named are the rule of that name or, if there is none, those that begin with it.
func named(rules []conformance.Rule, id string) (out []conformance.Rule) {
	for _, r := range rules {
		if r.ID == id {
			return []conformance.Rule{r}
		}
		if strings.HasPrefix(r.ID, id+"-") {
			out = append(out, r)
		}
	}
	return out
}

// print is a no if a case failed meanwhile.
func (s *specification) print(how func(io.Writer, bool) error, out io.Writer, asJSON bool) error {
	err := how(out, asJSON)
	if err == nil && s.failing > 0 {
		return exitCode(codeNo)
	}
	return err
}

// A ruleJSON is a rule with what its cases came to.
type ruleJSON struct {
	ID     string     `json:"id"`
	Says   string     `json:"says"`
	Source string     `json:"source"`
	Status string     `json:"status"`
	Reason string     `json:"reason,omitempty"`
	Shown  string     `json:"shown,omitempty"`
	Cases  []caseJSON `json:"cases"`
}

type caseJSON struct {
	Case  string `json:"case"`
	Rule  string `json:"rule"`
	OK    *bool  `json:"ok,omitempty"` // nil: not run
	Why   string `json:"why,omitempty"`
	Trace string `json:"trace,omitempty"`
}

func (s *specification) json(r conformance.Rule) ruleJSON {
	j := ruleJSON{r.ID, r.Says, r.Source, string(r.Status), r.Reason, r.Shown, []caseJSON{}}
	for _, c := range s.cases[r.ID] {
		j.Cases = append(j.Cases, caseJSON{Case: c.Name(), Rule: c.Rule})
	}
	return j
}

func (s *specification) list(out io.Writer, asJSON bool) error {
	for _, r := range s.rules {
		j := s.json(r)
		if asJSON {
			if err := json.NewEncoder(out).Encode(j); err != nil {
				return err
			}
			continue
		}
		names := cmp.Or(r.Shown, "-")
		if len(j.Cases) > 0 {
			names = j.Cases[0].Case
		}
		if len(j.Cases) > 1 {
			names += fmt.Sprintf(" and %d more", len(j.Cases)-1)
		}
		if _, err := fmt.Fprintf(out, "%-11s %-14s %-32s %s\n", r.ID, r.Status, names, r.Says); err != nil {
			return err
		}
	}
	return nil
}

func (s *specification) run(c *conformance.Case, j *caseJSON) {
	trace, err := c.Trace(nil)
	if err == nil {
		err = c.Compare(trace)
	}
	ok := err == nil
	j.OK, j.Trace = &ok, trace
	if !ok {
		s.failing++
		j.Why = err.Error()
	}
}
