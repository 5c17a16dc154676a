package policydraft

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/calloutd/calloutd/host/flight"
	"github.com/calloutd/calloutd/host/internal/oneline"
)

// Policy is a policy of the filters, which blocks everything else. What it is of is
// said in its first line.
func Policy(of string, fs []Filter) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# Drafted from what was seen of: %s\n# Read it before you rely on it: it permits what happened, and blocks what did not.\nversion: 1\n\nfilters:\n", oneLine(of))
	for i := range fs {
		b.WriteString(fs[i].yaml("  "))
	}
	b.WriteString("  - {name: everything else, layer: ALE_AUTH_CONNECT, action: block}\n")
	if slices.ContainsFunc(fs, func(f Filter) bool { return f.Inbound }) {
		b.WriteString("  - {name: nobody else comes in, layer: ALE_AUTH_RECV_ACCEPT, action: block}\n")
	}
	return []byte(b.String())
}

// oneLine is a text for a comment.
func oneLine(s string) string {
	const most = 100
	r := []rune(oneline.Clean(strings.Join(strings.Fields(s), " ")))
	if len(r) > most {
		return string(r[:most]) + "..."
	}
	return string(r)
}

// errFlow reports filters that stand on one line.
var errFlow = errors.New("filters: [...] on one line cannot be extended: write a filter a line")

// Extend adds filters to the end of a policy's. Nothing else of it is changed.
func Extend(src []byte, fs []Filter) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(src, &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("it is no policy")
	}
	top := doc.Content[0].Content
	at, indent, had := -1, "  ", 0
	lines := strings.SplitAfter(strings.TrimRight(string(src), "\n")+"\n", "\n")
	lines = lines[:len(lines)-1]
	for i := 0; i+1 < len(top); i += 2 {
		if top[i].Value != "filters" {
			continue
		}
		v := top[i+1]
		if v.Kind != yaml.SequenceNode || v.Style&yaml.FlowStyle != 0 || len(v.Content) == 0 {
			return nil, errFlow
		}
		indent = strings.Repeat(" ", max(0, v.Column-1))
		at, had = len(lines), len(v.Content)
		if i+2 < len(top) {
			at = top[i+2].Line - 1
		}
		for at > 0 && between(lines[at-1]) {
			at--
		}
	}
	var b strings.Builder
	if at < 0 {
		at = len(lines)
		b.WriteString("\nfilters:\n")
	}
	for i := range fs {
		b.WriteString(fs[i].yaml(indent))
	}
	out := []byte(strings.Join(lines[:at], "") + b.String() + strings.Join(lines[at:], ""))
	if n, err := filtersIn(out); err != nil || n != had+len(fs) {
		return nil, errors.New("its filters cannot be extended: they do not end where its text seems to say")
	}
	return out, nil
}

// filtersIn is how many filters a policy has.
func filtersIn(src []byte) (int, error) {
	var p struct{ Filters []yaml.Node }
	err := yaml.Unmarshal(src, &p)
	return len(p.Filters), err
}

// between reports whether a line is blank, or a comment at its beginning: such
// lines belong to what comes after them.
func between(line string) bool {
	return strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#")
}

// Cases are cases for a policy: what was seen is permitted. Where the policy is a
// draft, everything else is blocked.
func Cases(of, policy string, seen []*flight.Entry, draft bool) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# What was seen of: %s\nversion: 1\npolicy: %q\n\ntables:\n", oneLine(of), policy)
	out := rows(seen, false)
	in := rows(seen, true)
	if draft {
		out = append(out, "      - [/nobody/else, unknown, 192.0.2.1:9, tcp, block]\n")
		if len(in) > 0 {
			in = append(in, "      - [/nobody/else, unknown, 127.0.0.1:9, 192.0.2.1:60001, tcp, true, block]\n")
		}
	}
	if len(out) > 0 {
		b.WriteString("  - name: what was seen\n    columns: [program, user, to, protocol, action]\n    rows:\n" + strings.Join(out, ""))
	}
	if len(in) > 0 {
		b.WriteString("  - name: who came in\n    columns: [program, user, to, from, protocol, inbound, action]\n    rows:\n" + strings.Join(in, ""))
	}
	return []byte(b.String())
}

// rows are the connections, each once.
func rows(seen []*flight.Entry, inbound bool) (out []string) {
	for _, e := range seen {
		if e.Inbound != inbound {
			continue
		}
		user, program := "unknown", "unknown"
		if e.UserKnown {
			user = strconv.Itoa(int(e.User))
		}
		if e.Program != "" {
			program = strconv.Quote(e.Program)
		}
		row := fmt.Sprintf("      - [%s, %s, %q, %s, permit]\n", program, user, e.Remote.String(), protocol(e.Protocol))
		if inbound {
			row = fmt.Sprintf("      - [%s, %s, %q, %q, %s, true, permit]\n", program, user, e.Local.String(), e.Remote.String(), protocol(e.Protocol))
		}
		out = append(out, row)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
