package policytest

import (
	"fmt"
	"strings"
)

// Text is the explanation for people; who is the connection in words.
func (e *Explanation) Text(who string) string {
	var b strings.Builder
	past := map[string]string{Permit: "permitted", Block: "blocked", Redirect: "redirected to " + e.To}[e.Outcome]
	fmt.Fprintf(&b, "%s is %s.\n\n", who, past)
	if len(e.By) == 0 {
		b.WriteString("No filter decides: what nothing blocks is permitted (ARB-09).\n")
	}
	for _, p := range e.By {
		b.WriteString(p.decided())
	}
	writeArbitration(&b, e.Arbitration)
	b.WriteString("\nWhat would change it:\n")
	if e.Without != "" {
		fmt.Fprintf(&b, "  - %s\n", e.Without)
	}
	for _, p := range e.Others {
		fmt.Fprintf(&b, "  - %s would make it %s if\n", p.name(), p.Outcome)
		for _, s := range p.If {
			fmt.Fprintf(&b, "      %s\n", s)
		}
	}
	if e.Without == "" && len(e.Others) == 0 {
		b.WriteString("  - no filter of the policy would decide otherwise\n")
	}
	return b.String()
}

func (p *Part) name() string {
	if p.Filter == 0 {
		return "At " + p.Layer + " the engine"
	}
	s := fmt.Sprintf("filter %d %q", p.Filter, p.Name)
	if p.Place != "" {
		s += " (" + p.Place + ")"
	}
	if p.Owner != "" {
		s += " of " + p.Owner
	}
	return s + " at " + p.Layer
}

func (p *Part) decided() string {
	var b strings.Builder
	verb := "decides"
	if p.Late {
		verb = "comes too late"
	}
	fmt.Fprintf(&b, "%s %s", strings.ToUpper(p.name()[:1])+p.name()[1:], verb)
	if p.Rule != "" && p.Rule != "ARB-01" {
		fmt.Fprintf(&b, " (%s)", p.Rule)
	}
	switch {
	case p.Callout != "" && p.Says != "":
		fmt.Fprintf(&b, ", and callout %q says: %s", p.Callout, p.Says)
	case p.Callout != "":
		fmt.Fprintf(&b, ", by callout %q, which gives no reason", p.Callout)
	case p.Says != "":
		b.WriteString(": " + p.Says)
	}
	b.WriteString("\n")
	for _, s := range p.Because {
		fmt.Fprintf(&b, "  because %s\n", s)
	}
	if p.Filter != 0 && len(p.Because) == 0 {
		b.WriteString("  it has no conditions: it matches everything\n")
	}
	return b.String()
}
