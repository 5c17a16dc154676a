package policyfile

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// config takes a callout's configuration as JSON would have it. A text keeps
// its ${...} until ConfigJSON, but what they name is checked here, at their place.
func (r *reader) config(n *yaml.Node) any {
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			_, twice := m[k.Value]
			switch {
			case k.Kind != yaml.ScalarNode:
				r.fail(at(k), "", "config: expected a key that is a text, found %s", describe(k))
				continue
			case twice:
				r.fail(at(k), "", "config: key %q stands twice", short(k.Value))
			}
			m[k.Value] = r.config(n.Content[i+1])
		}
		return m
	case yaml.SequenceNode:
		l := make([]any, len(n.Content))
		for i, c := range n.Content {
			l[i] = r.config(c)
		}
		return l
	}
	return r.scalar(n)
}

func (r *reader) scalar(n *yaml.Node) any {
	if n.Tag == "!!int" && zeroed(strings.TrimLeft(n.Value, "+-")) {
		r.fail(at(n), "", "config: JSON has no number that begins with 0, found %s", short(n.Value))
		return nil
	}
	switch n.Tag {
	case "!!int", "!!bool", "!!null":
		var v any
		if err := n.Decode(&v); err != nil {
			r.fail(at(n), "", "config: %v", err)
		}
		return v
	case "!!float":
		var v float64
		if err := n.Decode(&v); err != nil || math.IsInf(v, 0) || math.IsNaN(v) {
			r.fail(at(n), "", "config: %s is no number that JSON has", short(n.Value))
			return nil
		}
		return v
	}
	r.references(n)
	return n.Value // Dates and what else YAML knows are text.
}

// A "${name}" in a configuration; "$${" is a plain "${".
var interpolation = regexp.MustCompile(`\$?\$\{[^}]*\}?`)

func (r *reader) references(n *yaml.Node) {
	for _, m := range interpolation.FindAllString(n.Value, -1) {
		if strings.HasPrefix(m, "$$") || slices.Contains(r.replaced, m) {
			continue
		}
		if kind, id := r.unlisted(m); kind != "" {
			r.fail(at(n), "", "config: %s is the number of a %s that the callout does not list: add %s to its %ss", m, kind, short(id), kind)
			continue
		}
		near := r.nearest(m, r.replaced)
		r.fail(at(n), near, "config: expected a name that calloutd replaces%s, found %q; a plain ${ is written $${", oneOf(r.replaced, near), short(m))
	}
}

// unlisted finds the set or table of the policy that a name is for, which the callout
// does not list.
func (r *reader) unlisted(name string) (kind, id string) {
	for _, kind := range []string{"set", "table"} {
		for _, id := range r.names[kind] {
			if name == nameOf(kind, id) {
				return kind, id
			}
		}
	}
	return "", ""
}

// replaces lists what stands for something in the configuration of a callout.
func (r *reader) replaces(sets, tables []string) []string {
	names := []string{pidName}
	for _, of := range []struct {
		kind string
		ids  []string
	}{{"proxy", r.names["proxy"]}, {"set", sets}, {"table", tables}} {
		for _, id := range of.ids {
			names = append(names, nameOf(of.kind, id))
		}
	}
	return names
}

const pidName = "${pid}"

func nameOf(kind, id string) string { return "${" + kind + ":" + id + "}" }

// ConfigJSON is a callout's configuration for the guest, nil if it has none.
// "${proxy:ID}" becomes the address of that proxy, "${pid}" becomes pid, and
// "${set:ID}" and "${table:ID}" the number of that one: as a number where it is
// the whole value, else as text.
func (c Callout) ConfigJSON(proxies map[string]netip.AddrPort, pid uint32) ([]byte, error) {
	if c.config == nil {
		return nil, nil
	}
	s := substitution{names: map[string]any{pidName: pid}}
	for id, a := range proxies {
		s.names[nameOf("proxy", id)] = a.String()
	}
	for i, id := range c.setIDs {
		s.names[nameOf("set", id)] = i
	}
	for i, id := range c.tableIDs {
		s.names[nameOf("table", id)] = i
	}
	v := s.value(c.config)
	if s.err != nil {
		return nil, s.err
	}
	return json.Marshal(v)
}

// A substitution replaces the names in a configuration. err is the first that
// could not be.
type substitution struct {
	names map[string]any
	err   error
}

func (s *substitution) value(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, x := range v {
			out[k] = s.value(x)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = s.value(x)
		}
		return out
	case string:
		if whole, ok := s.names[v]; ok {
			return whole
		}
		return interpolation.ReplaceAllStringFunc(v, s.name)
	}
	return v
}

func (s *substitution) name(m string) string {
	if strings.HasPrefix(m, "$$") {
		return m[1:]
	}
	v, ok := s.names[m]
	if !ok {
		s.err = cmp.Or(s.err, fmt.Errorf("config names %s, which is not running", m))
		return m
	}
	return fmt.Sprint(v)
}
