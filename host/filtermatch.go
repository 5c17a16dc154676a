package host

import (
	"fmt"
	"slices"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// A filterMatcher is a FilterEnumTemplate made ready (ENUM-02). Without one it
// leaves out boot-time and disabled filters only.
type filterMatcher struct {
	fwpm.FilterEnumTemplate
	all    bool
	flags  fwp.FilterEnumFlags
	starts bool // a prefix is the start of a value (AMB-34)
	fields []fieldConditions
}

// fieldConditions are the conditions on one field: alternatives.
type fieldConditions struct {
	field fwpm.ConditionID
	any   []fwpm.Condition
}

func byField(cs []fwpm.Condition) (out []fieldConditions) {
	for _, c := range cs {
		at := slices.IndexFunc(out, func(f fieldConditions) bool { return f.field == c.Field })
		if at < 0 {
			at = len(out)
			out = append(out, fieldConditions{field: c.Field})
		}
		out[at].any = append(out[at].any, c)
	}
	return out
}

func newFilterMatcher(t *fwpm.FilterEnumTemplate, starts bool) (*filterMatcher, error) {
	if t == nil {
		return &filterMatcher{all: true, starts: starts}, nil
	}
	bad := func(field string, err error) (*filterMatcher, error) {
		return nil, &fwpm.ObjectError{Kind: "filter", ID: "template", Field: field, Err: err}
	}
	switch only := t.Flags & fwp.FilterEnumBoottimeOnly; {
	case !t.Layer.Valid():
		return bad("layer", fwp.ErrLayerNotFound)
	case t.ActionMask == 0:
		return bad("action mask", fwp.ErrNeverMatch)
	case t.EnumType > fwp.FilterEnumOverlapping:
		return bad("enum type", fwp.ErrInvalidParameter)
	case t.Flags&^fwp.FilterEnumValidFlags != 0, only != 0 && t.Flags&fwp.FilterEnumIncludeDisabled != 0:
		return bad("flags", fwp.ErrInvalidFlags)
	}
	if field, err := checkTemplate(t); err != nil {
		return bad(field, err)
	}
	return &filterMatcher{FilterEnumTemplate: *t, flags: t.Flags, starts: starts, fields: byField(t.Conditions)}, nil
}

// checkTemplate checks the conditions as a filter's, but that a user may be given
// as a SID (BFE-CND-03).
func checkTemplate(t *fwpm.FilterEnumTemplate) (field string, err error) {
	checker, _ := arbitrate.NewChecker(new(fwpm.Policy)) // An empty policy is right.
	for i, c := range t.Conditions {
		field := fmt.Sprintf("conditions[%d]", i)
		if c.Value.Type == fwp.SIDType && t.Layer.Offers(c.Field) && c.Field.DataType(t.Layer) == fwp.TokenAccessInformation {
			if c.Match != fwp.MatchEqual || !fwp.SID(c.Value.Text).Valid() {
				return field, fwp.ErrInvalidParameter
			}
			continue
		}
		f := fwpm.Filter{ID: fwpm.FilterID(i) + 1, Name: field, Layer: t.Layer, Action: fwp.ActionBlock, Conditions: []fwpm.Condition{c}}
		if err := checker.Filter(&f); err != nil {
			return field, err
		}
	}
	return "", nil
}

// find lists the filters that match: in the order of adding, unless the flags
// want that of arbitration.
func (m *filterMatcher) find(w *objects) []*object {
	var found []*object
	for _, o := range w.sorted() {
		if o.filter != nil && m.matches(w, o) {
			found = append(found, o)
		}
	}
	if m.flags&(fwp.FilterEnumSorted|fwp.FilterEnumBestTerminatingMatch) != 0 {
		slices.SortFunc(found, w.byArbitration)
	}
	if m.flags&fwp.FilterEnumBestTerminatingMatch == 0 {
		return found
	}
	for i, o := range found {
		if o.filter.Action&fwp.ActionFlagTerminating != 0 {
			return found[i : i+1]
		}
	}
	return nil
}

func (m *filterMatcher) matches(w *objects, o *object) bool {
	f := o.filter
	if !m.included(f.Boottime, w.disabled[o.key]) {
		return false
	}
	if m.all {
		return true
	}
	return m.Layer == f.Layer && f.Action&m.ActionMask != 0 && (m.Provider == "" || m.Provider == f.Provider) &&
		(m.Callout == "" || m.Callout == f.Callout) && m.accepts(byField(f.Conditions))
}

func (m *filterMatcher) included(boottime, disabled bool) bool {
	switch {
	case m.flags&fwp.FilterEnumBoottimeOnly != 0:
		return boottime
	case boottime:
		return m.flags&fwp.FilterEnumIncludeBoottime != 0
	}
	return !disabled || m.flags&fwp.FilterEnumIncludeDisabled != 0
}

// accepts compares field by field. A filter without conditions on a field takes
// all its values; a template without any leaves every value open.
func (m *filterMatcher) accepts(filter []fieldConditions) bool {
	whole := m.EnumType == fwp.FilterEnumFullyContained
	if len(m.fields) == 0 {
		return true
	}
	for _, f := range filter {
		at := slices.IndexFunc(m.fields, func(t fieldConditions) bool { return t.field == f.field })
		switch {
		case at < 0 && whole:
			return false
		case at < 0:
		case whole && !slices.ContainsFunc(m.fields[at].any, func(c fwpm.Condition) bool { return !m.contains(f.any, c) }):
		case !whole && slices.ContainsFunc(m.fields[at].any, func(c fwpm.Condition) bool { return m.overlaps(f.any, c) }):
		default:
			return false
		}
	}
	return true
}
