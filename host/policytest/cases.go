package policytest

import (
	"fmt"
	"net/netip"
	"slices"

	"go.yaml.in/yaml/v4"
)

func (r *reader) root(n *yaml.Node) {
	vs := r.mapping(n, "the file", []string{"version", "policy", "with", "defaults", "cases", "tables", "refusals"})
	if v, ok := get(vs, "version"); !ok && n.Kind == yaml.MappingNode {
		r.fail(n, "", "version is missing: this format is version 1")
	} else if ok && v.Value != "1" {
		r.bad(v, "1")
	}
	base := ordinary()
	for _, v := range vs {
		switch v.key {
		case "policy":
			r.Policy, _ = r.text(v)
		case "with":
			r.With = r.words(v)
			r.with = r.With
		case "defaults":
			r.defaults(v, &base)
		}
	}
	for _, v := range vs {
		switch v.key {
		case "cases":
			for _, c := range r.list(v) {
				r.oneCase(c, base)
			}
		case "tables":
			for _, t := range r.list(v) {
				r.table(t, base)
			}
		case "refusals":
			for _, c := range r.list(v) {
				r.refusal(c)
			}
		}
	}
	if len(r.Cases) == 0 && len(r.problems) == 0 {
		r.fail(n, "", "there are no cases: expected cases, tables or refusals")
	}
	r.unique()
}

// beside reads what is beside the policy of a case or table; the function returns to
// that of the file.
func (r *reader) beside(vs []value) func() {
	if v, ok := get(vs, "with"); ok {
		r.with = r.words(v)
	}
	return func() { r.with = r.With }
}

func (r *reader) words(v value) (out []string) {
	for _, n := range r.list(v) {
		if word, ok := r.text(value{v.key, n}); ok {
			out = append(out, word)
		}
	}
	return out
}

func (r *reader) unique() {
	seen := map[string]Place{}
	for _, c := range r.Cases {
		if first, twice := seen[c.Name]; twice {
			r.problems = append(r.problems, r.problem(c.Place, "", fmt.Sprintf("case %q stands twice, first in line %d", c.Name, first.Line)))
		}
		seen[c.Name] = c.Place
	}
}

func (r *reader) defaults(v value, base *Step) {
	for _, d := range r.mapping(v.Node, "defaults", alone()) {
		find(connectionKeys, d.key).read(r, d, base)
	}
}

func (r *reader) oneCase(n *yaml.Node, base Step) {
	vs := r.mapping(n, "a case", names(connectionKeys, "name", "with", "expect", "steps"))
	if vs == nil {
		return
	}
	defer r.beside(vs)()
	c := Case{Place: place(n), With: r.with}
	if v, ok := get(vs, "name"); ok {
		c.Name, _ = r.text(v)
	} else {
		r.fail(n, "", "name is missing")
	}
	steps, several := get(vs, "steps")
	if !several {
		c.Steps = []Step{r.step(n, vs, base, nil)}
		c.Steps[0].Name = ""
		r.Cases = append(r.Cases, c)
		return
	}
	for _, v := range vs {
		switch k := find(connectionKeys, v.key); {
		case v.key == "expect", k != nil && k.read == nil:
			r.fail(v.Node, "", "%s: a case with steps has it in each step", v.key)
		case k != nil:
			k.read(r, v, &base)
		}
	}
	for _, s := range r.list(steps) {
		if vs := r.mapping(s, "a step", names(connectionKeys, "name", "expect")); vs != nil {
			c.Steps = append(c.Steps, r.step(s, vs, base, c.Steps))
		}
	}
	if len(c.Steps) == 0 && steps.Kind == yaml.SequenceNode {
		r.fail(steps.Node, "", "steps: the list is empty, so the case tests nothing")
	}
	r.Cases = append(r.Cases, c)
}

// step reads one connection; before are the earlier ones of the case.
func (r *reader) step(n *yaml.Node, vs []value, base Step, before []Step) Step {
	s := base
	s.Place, s.Want = place(n), nil
	if v, ok := get(vs, "reauthorizes"); ok {
		r.reauthorizes(v, vs, &s, before)
	}
	if _, ok := get(vs, "records_of"); ok { // Goes on to where the other one was going: what defaults say is where that is.
		s.toGiven, s.toProxy, s.Incoming.Remote = false, "", netip.AddrPort{}
	}
	for _, v := range vs {
		switch k := find(connectionKeys, v.key); {
		case v.key == "name":
			s.Name, _ = r.text(v)
			if slices.ContainsFunc(before, func(b Step) bool { return b.Name == s.Name }) {
				r.fail(v.Node, "", "name: an earlier step is called %q, too", s.Name)
			}
		case v.key == "records_of":
			s.RecordsOf = r.earlier(v, before)
		case v.key == "expect":
			for _, e := range r.mapping(v.Node, "expect", names(expectationKeys)) {
				find(expectationKeys, e.key).read(r, e, &s)
			}
		case k != nil && k.read != nil:
			k.read(r, v, &s)
		}
	}
	r.complete(n, vs, &s)
	return s
}

// reauthorizes reads the step whose connection it is that vs say nothing else of.
func (r *reader) reauthorizes(v value, vs []value, s *Step, before []Step) {
	for _, o := range vs {
		if o.key != v.key && find(connectionKeys, o.key) != nil {
			r.fail(o.Node, "", "%s: a step with reauthorizes is about the connection of the other step, as it was", o.key)
		}
	}
	s.Reauthorizes = r.earlier(v, before)
	if s.Reauthorizes < 0 {
		return
	}
	of := &before[s.Reauthorizes]
	if of.Listen {
		r.fail(v.Node, "", "reauthorizes: step %q listens, and only connections are asked about again", of.Name)
	}
	if of.Reauthorizes >= 0 {
		s.Reauthorizes = of.Reauthorizes
	}
}

// earlier is the step of a case that v names, -1 where there is none.
func (r *reader) earlier(v value, before []Step) int {
	var known []string
	for i, b := range before {
		switch b.Name {
		case "":
			continue
		case v.Value:
			return i
		}
		known = append(known, b.Name)
	}
	if len(known) == 0 {
		r.fail(v.Node, "", "%s: expected the name of an earlier step, and none has one", v.key)
	} else {
		r.bad(v, "the name of an earlier step", known...)
	}
	return -1
}

// complete looks at a step as a whole.
func (r *reader) complete(n *yaml.Node, vs []value, s *Step) {
	in := &s.Incoming
	_, again := get(vs, "reauthorizes")
	switch {
	case again && s.wants("sound"):
		r.fail(n, "", "sound: it is of the step that connects, not of one that reauthorizes")
	case again:
	case !s.toGiven && s.RecordsOf < 0:
		r.fail(n, "", "to is missing: where the connection goes, such as 198.51.100.7:80")
	case in.Inbound && !in.Local.IsValid():
		r.fail(n, "", "from is missing: inbound needs the address of who connects")
	case (in.Inbound || s.Listen) && s.RecordsOf >= 0:
		r.fail(n, "", "records_of: only a connection that the program makes has records set")
	case in.Inbound && s.Listen:
		r.fail(n, "", "inbound and listen exclude each other")
	case in.Local.IsValid() && in.Remote.IsValid() && in.Local.Addr().Is4() != in.Remote.Addr().Is4():
		r.fail(n, "", "from %s and to %s are of two address families", in.Local, in.Remote)
	}
	if !s.wants("action") && !s.wants("sound") {
		r.fail(n, "", "expect needs an action: permit, block or redirect")
	}
}
