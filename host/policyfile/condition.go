package policyfile

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// A condition is one of the file: a field, a match type and one value.
type condition struct {
	field   fwpm.ConditionID
	match   fwp.Match
	operand operand

	node, fieldNode, matchNode, valueNode *yaml.Node
}

// nodes are the places of a condition's parts, by their ending in the Field of
// an fwpm.ObjectError.
func (c condition) nodes() map[string]*yaml.Node {
	return map[string]*yaml.Node{"": c.node, ".field": c.fieldNode, ".match": c.matchNode, ".value": c.valueNode}
}

// negative says that the condition holds for what differs from its value.
func (c condition) negative() bool {
	return c.match == fwp.MatchNotEqual || c.match == fwp.MatchNotPrefix || c.match == fwp.MatchFlagsNoneSet
}

// condition reads one condition of a filter at layers, which have the same
// fields. Each value of a list is one condition, but for flags.
func (r *reader) condition(f fields, layer string, layers []fwpm.LayerID) []condition {
	l := layers[0]
	fieldNode := f.vals["field"]
	field, _ := fwpm.ParseCondition(fieldNode.Value)
	if !l.Offers(field) {
		r.fail(at(fieldNode), "", "field: expected a field of layer %s%s, found %q, which %s", layer, oneOf(fieldsOf(l), ""), fieldNode.Value, having(field))
		return nil
	}
	c := condition{field: field, node: f.node, fieldNode: fieldNode, matchNode: fieldNode, valueNode: f.vals["value"]}
	t := typeOf(field, l)
	match, ok := r.match(f, &c, t, l)
	if !ok || c.valueNode == nil {
		return nil
	}
	if c.valueNode.Kind == yaml.SequenceNode {
		return r.alternatives(c, match, t, layers)
	}
	if r.operand(&c, match, t, layers) {
		return []condition{c}
	}
	return nil
}

// match reads the match type, empty for the one that the value implies.
func (r *reader) match(f fields, c *condition, t valueType, l fwpm.LayerID) (string, bool) {
	name := f.text("match")
	switch known := matches(c.field, l); {
	case name == "" && f.keys["match"] == nil && t.bits:
		r.fail(at(c.node), "", "match is missing: %s holds many flags at once, expected flags_all_set, flags_any_set, flags_none_set or another match type", c.field)
		return "", false
	case name == "":
		return "", f.keys["match"] == nil
	case !slices.Contains(known, name):
		r.fail(at(f.vals["match"]), "", "match type %s does not fit %s, which is compared with %s: expected one of %s", name, c.field, t.what, strings.Join(known, ", ")+exceptions(name))
		return "", false
	}
	c.matchNode = f.vals["match"]
	return name, true
}

// exceptions is what helps who wanted all but some.
func exceptions(match string) string {
	if strings.HasPrefix(match, "not_") {
		return "; to leave some out, name them in a heavier filter"
	}
	return ""
}

// alternatives reads a list. The flags of a list are one value; the values of
// other lists are alternatives (BFE-CND-01), which makes no sense of a match
// type that most values satisfy.
func (r *reader) alternatives(c condition, match string, t valueType, layers []fwpm.LayerID) []condition {
	values := c.valueNode.Content
	if len(values) == 0 {
		r.fail(at(c.valueNode), "", "value: the list is empty, so the condition never holds")
		return nil
	}
	if t.bits {
		if r.operand(&c, match, t, layers) {
			return []condition{c}
		}
		return nil
	}
	if !slices.Contains([]string{"", "equal", "equal_case_insensitive", "range", "prefix"}, match) && len(values) > 1 {
		r.fail(at(c.valueNode), "", "value: a list means alternatives, which with %s hold for almost everything: name the exceptions in a heavier filter", match)
		return nil
	}
	var all []condition
	for _, n := range values {
		if r.full() {
			return nil
		}
		one := c
		one.valueNode = n
		if r.operand(&one, match, t, layers) {
			all = append(all, one)
		}
	}
	return all
}

// operand reads the value of c and completes its match type.
func (r *reader) operand(c *condition, match string, t valueType, layers []fwpm.LayerID) bool {
	o, err := t.operand(c.valueNode, match)
	if err != nil {
		r.fail(at(c.valueNode), err.nearest, "value of %s: expected %s, found %s", c.field, err.want, describe(err.node(c.valueNode)))
		return false
	}
	if len(layers) == 1 && o.isAddress() && o.is4() == layers[0].IsV6() {
		r.fail(at(c.valueNode), layers[0].ForFamily(!o.is4()).String(), "value of %s: %s is asked about IPv%s, and %s is not", c.field, layers[0], family(layers[0].IsV6()), describe(c.valueNode))
		return false
	}
	if c.field == fwpm.ConditionIPLocalAddress && layers[0].ForFamily(false) == fwpm.LayerALEResourceAssignmentV4 && o.low.IsUnspecified() && !o.isRange() {
		r.fail(at(c.valueNode), Empty, "value of %s: a socket that binds no address has none at this layer (ALE-LAY-06), found %s", c.field, describe(c.valueNode))
		return false
	}
	if why := nobodys(c.field, o.plain, match); why != "" {
		r.notes = append(r.notes, note{at(c.valueNode), "value of " + c.field.String() + ": " + why})
	}
	c.operand = o
	switch {
	case match != "":
		c.match, _ = fwp.ParseMatch(match)
	case o.isRange():
		c.match = fwp.MatchRange
	}
	return true
}

func family(v6 bool) string {
	if v6 {
		return "6"
	}
	return "4"
}

// nobodys says why a value of Windows is that of no program and no user that is decided about.
func nobodys(field fwpm.ConditionID, v fwp.Value, match string) string {
	switch {
	case (field == fwpm.ConditionALEAppID || field == fwpm.ConditionALEOriginalAppID) && match != "equal" && strings.Contains(v.Text, `\`):
		return "no program of Linux, where policies are enforced, has a path of Windows: there it is one such as /usr/bin/curl; match: equal takes it as it is"
	case v.SD != nil && !slices.ContainsFunc(v.SD.ACEs, func(a fwp.ACE) bool { return !a.Deny && held(a.SID) }):
		return "it lets nobody match: users are S-1-22-1-UID here, groups S-1-22-2-GID, and everybody is S-1-1-0 (WD)"
	}
	return ""
}

// held reports whether a token can hold a SID (BFE-CND-07).
func held(s fwp.SID) bool {
	return s == fwp.SIDEveryone || strings.HasPrefix(string(s), "S-1-22-1-") || strings.HasPrefix(string(s), "S-1-22-2-")
}
