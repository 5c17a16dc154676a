package policyfile

import (
	"fmt"
	"math"
	"slices"

	"go.yaml.in/yaml/v4"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// A draft is a filter of the file: one filter of the policy for each family,
// which have no number yet.
type draft struct {
	fields
	id     uint64 // as written; zero: the next free one
	halves []half
}

type half struct {
	fwpm.Filter
	places []condition // of the conditions
}

func (r *reader) filter(n *yaml.Node) {
	f := r.mapping(n, &filterKeys)
	d := draft{fields: f, id: f.number("id")}
	common := fwpm.Filter{Name: f.text("name"), ClearActionRight: f.truth("hard"),
		PermitIfCalloutUnregistered: f.truth("permit_if_callout_unregistered"),
		Provider:                    r.ownerOf(f), ProviderContext: fwpm.ProviderContextID(f.text("provider_context")), Sublayer: fwpm.SublayerID(f.text("sublayer")),
		Action: parseAction(f.text("action")), Callout: fwpm.CalloutID(f.text("callout"))}
	common.Weight = r.weight(f.vals["weight"])
	if common.Action != 0 {
		r.calls(f, common.Action)
	}
	layers := parseLayer(f.text("layer"))
	if common.Action == fwp.ActionBlock && len(layers) > 0 {
		r.stops(f, layers[0])
	}
	conditions := r.conditions(f, layers)
	for _, l := range layers {
		h := half{Filter: common}
		h.Layer = l
		if h.add(conditions, len(layers) == 2) {
			d.halves = append(d.halves, h)
		}
	}
	if len(layers) == 2 && len(d.halves) == 0 {
		r.fail(at(f.vals["layer"]), "", "no family fits: some conditions have only IPv4 addresses and others only IPv6 addresses")
	}
	if len(layers) == 0 { // The compiler still looks at the rest.
		d.halves = []half{{Filter: common}}
	}
	r.drafts = append(r.drafts, d)
}

func (r *reader) weight(n *yaml.Node) fwpm.Weight {
	if n == nil {
		return fwpm.Weight{}
	}
	if n.Kind == yaml.MappingNode {
		return fwpm.Weight{Type: fwp.Uint64, Value: r.mapping(n, &weightKeys).number("exact")}
	}
	v, _ := integer(n)
	return fwpm.Weight{Type: fwp.Uint8, Value: v}
}

// calls checks that the action and the keys that need a callout fit.
func (r *reader) calls(f fields, a fwp.Action) {
	for _, key := range []string{"callout", "permit_if_callout_unregistered"} {
		if v := f.raw[key]; v != nil && !a.CallsOut() {
			r.fail(at(v), "", "%s: action %s asks no callout", key, f.text("action"))
		}
	}
	if a.CallsOut() && f.keys["callout"] == nil {
		r.fail(at(f.node), "", "callout is missing: action %s asks a callout of this file%s", f.text("action"), oneOf(r.names["callout"], ""))
	}
}

// stops refuses a block where WFP asks only what to change or tells only what was, and
// goes on whatever the answer is: as a policy it would be a hole with a name on it.
func (r *reader) stops(f fields, l fwpm.LayerID) {
	if instead := blockless[l.ForFamily(false)]; instead != "" {
		r.fail(at(f.vals["action"]), "", "action: block stops nothing at %s %s", f.text("layer"), instead)
	}
}

// blockless are the layers where a block stops nothing, and what to do instead.
var blockless = map[fwpm.LayerID]string{
	fwpm.LayerALEConnectRedirectV4: "(CH-16): block at ALE_AUTH_CONNECT; what is only not to be redirected is permitted with hard",
	fwpm.LayerALEBindRedirectV4:    "(CH-16): block at ALE_RESOURCE_ASSIGNMENT; what is only not to be redirected is permitted with hard",
	fwpm.LayerALEFlowEstablishedV4: "(ALE-LAY-10): block at ALE_AUTH_CONNECT or ALE_AUTH_RECV_ACCEPT",
	fwpm.LayerALEEndpointClosureV4: "(ALE-LAY-07), which is when a connection ends: block at ALE_AUTH_CONNECT or ALE_AUTH_RECV_ACCEPT",
	fwpm.LayerALEResourceReleaseV4: "(ALE-LAY-07), which is when a socket ends: block at ALE_RESOURCE_ASSIGNMENT",
}

// number gives the filters their ids: what is written, and the next free
// number for the others (AMB-37: the lower id goes first at equal weight).
func (r *reader) number() {
	taken := map[fwpm.FilterID]*draft{}
	for i := range r.drafts {
		d := &r.drafts[i]
		for j := range d.halves {
			if d.id == 0 {
				break
			}
			id := fwpm.FilterID(d.id + uint64(j))
			if other := taken[id]; other != nil {
				r.fail(at(d.vals["id"]), "", "id %d is that of the filter in line %d%s", id, other.node.Line, twoIDs(other))
			}
			taken[id], d.halves[j].ID = d, id
		}
	}
	next := fwpm.FilterID(0)
	for i := range r.drafts {
		d := &r.drafts[i]
		for j := range d.halves {
			h := &d.halves[j]
			for h.ID == 0 {
				if next++; taken[next] == nil {
					h.ID = next
				}
			}
			r.keep(d, h)
		}
	}
}

func twoIDs(d *draft) string {
	if len(d.halves) == 2 {
		return ", which takes two for its two families"
	}
	return ""
}

func (r *reader) keep(d *draft, h *half) {
	id := fmt.Sprint(h.ID)
	r.place(d.fields, "filter", id)
	for i, c := range h.places {
		for key, n := range c.nodes() {
			r.places[object{"filter", id, fmt.Sprintf("conditions[%d]%s", i, key)}] = at(n)
		}
	}
	r.Policy.Filters = append(r.Policy.Filters, h.Filter)
}

// conditions reads the conditions of a filter. Each value of a list is one,
// except for the flags.
func (r *reader) conditions(filter fields, layers []fwpm.LayerID) []condition {
	var all []condition
	for _, n := range filter.list("conditions") {
		f := r.mapping(n, &conditionKeys)
		if len(layers) > 0 && f.vals["field"] != nil {
			all = append(all, r.condition(f, filter.text("layer"), layers)...)
		}
	}
	for i, c := range all {
		for _, o := range all[:i] {
			from, to, all := rest(o, c)
			switch {
			case !all:
			case from <= to:
				r.fail(at(c.node), "", "%s: conditions on one field are alternatives, and of these one always holds: from %d to %d is value: %[2]d-%[3]d", c.field, from, to)
			default:
				r.fail(at(c.node), "", "%s: conditions on one field are alternatives, and of these one always holds: leave both out", c.field)
			}
		}
		same := func(o condition) bool { return o.field == c.field }
		if c.negative() && (slices.ContainsFunc(all[:i], same) || slices.ContainsFunc(all[i+1:], same)) {
			r.fail(at(c.node), "", "%s: conditions on one field are alternatives, which with %s among them hold for almost everything: name the exceptions in a heavier filter", c.field, c.match)
		}
	}
	return all
}

// rest reports whether every number satisfies one of two conditions on a field, as
// those do that were meant to hold together: more than 80, and less than 100.
func rest(a, b condition) (from, to uint64, all bool) {
	if a.field != b.field || a.operand.isAddress() || !a.operand.plain.Type.Unsigned() {
		return 0, 0, false
	}
	if a.match == fwp.MatchLess || a.match == fwp.MatchLessOrEqual {
		a, b = b, a
	}
	from, to = a.operand.plain.Uint, b.operand.plain.Uint
	if a.match == fwp.MatchGreater && from == math.MaxUint64 || b.match == fwp.MatchLess && to == 0 {
		return 0, 0, false // That one never holds, which is a mistake of its own.
	}
	switch a.match {
	case fwp.MatchGreater:
		from++
	case fwp.MatchGreaterOrEqual:
	default:
		return 0, 0, false
	}
	switch b.match {
	case fwp.MatchLess:
		to--
	case fwp.MatchLessOrEqual:
	default:
		return 0, 0, false
	}
	return from, to, from <= to || from == to+1
}

// add gives the half the conditions that fit its layer, and reports whether it
// can match at all. Of a filter for both families, each half leaves out the
// alternatives of the other one.
func (h *half) add(all []condition, both bool) bool {
	have, want := map[fwpm.ConditionID]bool{}, map[fwpm.ConditionID]bool{}
	for _, c := range all {
		v, fit := c.value(h.Layer, both)
		switch fit {
		case fits:
			h.Conditions = append(h.Conditions, fwpm.Condition{Field: c.field, Match: c.match, Value: v})
			h.places = append(h.places, c)
			have[c.field] = true
		case always:
			have[c.field] = true
		}
		want[c.field] = true
	}
	return len(have) == len(want)
}
