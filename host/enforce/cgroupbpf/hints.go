package cgroupbpf

import (
	"context"
	"slices"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// A hint is what the kernel knows of a filter.
type hint struct {
	layer fwpm.LayerID
	// part has the filter with those of its fields that the kernel knows.
	part  *arbitrate.Program
	needs verdict // ask: there are other fields; callout: or a callout; else permit
}

// hints prepares every filter once, for TCP and UDP or for the other protocols.
func hints(p *fwpm.Policy, otherProtocol bool) ([]hint, error) {
	out := make([]hint, 0, len(p.Filters))
	for i := range p.Filters {
		f := &p.Filters[i]
		unknown := map[fwpm.ConditionID]bool{}
		for _, c := range f.Conditions {
			unknown[c.Field] = unknown[c.Field] || !kernelKnows(&c, otherProtocol)
		}
		part := fwpm.Filter{ID: f.ID, Name: f.Name, Layer: f.Layer, Action: fwp.ActionBlock}
		for _, c := range f.Conditions {
			if !unknown[c.Field] { // A field's conditions are alternatives: all or none.
				part.Conditions = append(part.Conditions, c)
			}
		}
		prog, err := arbitrate.Compile(&fwpm.Policy{Filters: []fwpm.Filter{part}}, arbitrate.Options{})
		if err != nil {
			return nil, err
		}
		h := hint{f.Layer, prog, permit}
		switch {
		case f.Action.CallsOut():
			h.needs = callout
		case len(part.Conditions) < len(f.Conditions):
			h.needs = ask
		}
		out = append(out, h)
	}
	return out, nil
}

// needsMore is permit unless a filter that may match asks for more than the kernel
// knows: a field beyond address, port, protocol and user, or a callout.
func (s *survey) needsMore(in *fwps.Incoming, hints []hint) verdict {
	needs := permit
	for i := range hints {
		h := &hints[i]
		if h.needs == permit || h.layer != in.Layer {
			continue
		}
		if h.part.Classify(context.Background(), in, &s.d); s.d.Action != fwp.ActionBlock {
			continue
		}
		if needs = h.needs; needs == callout {
			return callout
		}
	}
	return needs
}

// kernelKnows reports whether a cell decides a condition.
func kernelKnows(c *fwpm.Condition, otherProtocol bool) bool {
	switch c.Field {
	case fwpm.ConditionIPProtocol: // The other protocols are one cell.
		return !otherProtocol || c.Match == fwp.MatchEqual && (c.Value.Uint == uint64(fwps.ProtocolTCP) || c.Value.Uint == uint64(fwps.ProtocolUDP))
	case fwpm.ConditionIPRemotePort:
		return c.Value.Type != fwp.Empty
	case fwpm.ConditionIPRemoteAddress:
		_, prefix := prefixOf(c.Value)
		return prefix && (c.Match == fwp.MatchEqual || c.Match == fwp.MatchNotEqual)
	case fwpm.ConditionALEUserID:
		return c.Value.SD != nil && !slices.ContainsFunc(c.Value.SD.ACEs, func(a fwp.ACE) bool {
			_, group, unix := a.SID.Unix()
			return group || !unix && a.SID != fwp.SIDEveryone
		})
	}
	return false
}
