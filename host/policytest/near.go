package policytest

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// A near is a filter that did not match, by how many fields.
type near struct {
	*fwpm.Filter
	unmet []fwpm.ConditionID
}

// others finds filters that would decide otherwise if what did not hold held. Each
// is tried, so what they would do is what they do.
func (x *explainer) others() (out []Part, err error) {
	const most = 3
	for _, n := range x.nearest() {
		o, err := x.tries(&n)
		if err != nil {
			return nil, err
		}
		if !o.differs(&x.is) {
			continue
		}
		p := Part{Layer: n.Layer.String(), Filter: uint64(n.ID), Name: n.Name, Place: x.Policy.Place(n.ID), Callout: string(n.Callout), Outcome: o.words()}
		for _, field := range n.unmet {
			p.If = append(p.If, n.wish(field, x.at(n.Layer)))
		}
		if out = append(out, p); len(out) == most {
			break
		}
	}
	return out, nil
}

// tries decides a connection for which the filter's conditions hold; where none
// can be described, this one, as if they held.
func (x *explainer) tries(n *near) (Outcome, error) {
	in, ok := x.in, true
	for _, field := range n.unmet {
		ok = ok && meet(n.Filter, field, &in)
	}
	if !ok {
		return x.would(n.held(x.Policy.Policy.Filters))
	}
	if err := x.put(x.Policy.Policy.Filters); err != nil {
		return Outcome{}, err
	}
	return x.Decide(x.ctx, x.Record(), in)
}

func (x *explainer) nearest() (out []near) {
	for i := range x.Policy.Policy.Filters {
		f := &x.Policy.Policy.Filters[i]
		in := x.at(f.Layer)
		if in == nil || !authorizes(f.Layer) {
			continue
		}
		if unmet := unmet(f, in); len(unmet) > 0 {
			out = append(out, near{f, unmet})
		}
	}
	slices.SortStableFunc(out, func(a, b near) int { return len(a.unmet) - len(b.unmet) })
	return out[:min(len(out), nearby)]
}

// unmet lists the fields of which no condition holds (BFE-CND-01).
func unmet(f *fwpm.Filter, in *fwps.Incoming) (out []fwpm.ConditionID) {
	met := map[fwpm.ConditionID]bool{}
	for i := range f.Conditions {
		met[f.Conditions[i].Field] = met[f.Conditions[i].Field] || arbitrate.Holds(&f.Conditions[i], in)
	}
	for i := range f.Conditions {
		if field := f.Conditions[i].Field; !met[field] && !slices.Contains(out, field) {
			out = append(out, field)
		}
	}
	return out
}

// held is the policy as if the filter's conditions held. Its weight stays that of
// all its conditions.
func (n *near) held(fs []fwpm.Filter) []fwpm.Filter {
	fs = slices.Clone(fs)
	for i := range fs {
		if f := &fs[i]; f.ID == n.ID {
			if w, err := arbitrate.EffectiveWeight(f); err == nil {
				f.Weight = fwpm.Weight{Type: fwp.Uint64, Value: w}
			}
			f.Conditions = slices.DeleteFunc(slices.Clone(f.Conditions), func(c fwpm.Condition) bool { return slices.Contains(n.unmet, c.Field) })
		}
	}
	return fs
}

// wish says what a field would have to be, and what it is.
func (n *near) wish(field fwpm.ConditionID, in *fwps.Incoming) string {
	var any []string
	for i := range n.Conditions {
		if c := &n.Conditions[i]; c.Field == field {
			any = append(any, clause(c))
		}
	}
	is := valueWords(field, in.Field(field))
	if field == fwpm.ConditionALEUserID && in.UserKnown {
		is = fmt.Sprint("user ", in.UserID)
	}
	return few(any) + " (it is " + is + ")"
}

// meet changes a connection so that the filter's conditions on a field hold, and
// reports whether it could.
func meet(f *fwpm.Filter, field fwpm.ConditionID, in *fwps.Incoming) bool {
	s := new(Space)
	s.filter(&fwpm.Filter{Layer: f.Layer, Conditions: f.Conditions})
	try := func(next fwps.Incoming) bool {
		next.Layer = f.Layer
		holds := slices.ContainsFunc(f.Conditions, func(c fwpm.Condition) bool { return c.Field == field && arbitrate.Holds(&c, &next) })
		if next.Layer = 0; holds {
			*in = next
		}
		return holds
	}
	next := *in
	switch field {
	case fwpm.ConditionIPRemoteAddress:
		return slices.ContainsFunc(s.addresses, func(a netip.Addr) bool { next.Remote = netip.AddrPortFrom(a, in.Remote.Port()); return try(next) })
	case fwpm.ConditionIPRemotePort:
		return slices.ContainsFunc(s.ports, func(p uint16) bool { next.Remote = netip.AddrPortFrom(in.Remote.Addr(), p); return try(next) })
	case fwpm.ConditionIPProtocol:
		return slices.ContainsFunc(s.protocols, func(p uint8) bool { next.Protocol = p; return try(next) })
	case fwpm.ConditionALEAppID:
		return slices.ContainsFunc(s.programs, func(p string) bool { next.AppID = p; return try(next) })
	case fwpm.ConditionALEUserID:
		return slices.ContainsFunc(s.users, func(u uint32) bool { next.UserID, next.UserKnown = u, true; return try(next) })
	}
	return false
}
