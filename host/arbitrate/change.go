package arbitrate

import "github.com/calloutd/calloutd/host/fwpm"

// A Change is the difference between two policies.
type Change struct {
	// Gone are filters of the program, by identifier and conditions, and Came those
	// that are new, which must have passed a Checker and not be modified afterwards.
	// A filter that changed is in both.
	Gone, Came []*fwpm.Filter
	// Objects are all objects of the policy but filters. Optional: as they were.
	Objects *Checker
	// Generations are those of the new program.
	Generations [fwpm.NumLayers]uint64
}

// Change returns the program of a changed policy, in time that depends on what
// changed and hardly on what stays. The program that it is made of goes on as it
// was. Sublayers whose order changes, or a new one before others, make the index
// of their layer again.
//
// The error is that a filter is gone which was not there.
func (p *Program) Change(ch Change) (*Program, error) {
	next := *p
	c := newCompiler(&next, len(ch.Came))
	defer c.end()
	c.generations(&ch.Generations)
	if err := c.remove(ch.Gone); err != nil {
		return nil, err
	}
	if ch.Objects != nil {
		next.objects = ch.Objects
		if !next.same(ch.Objects) {
			o := *next.opts
			o.Generations = ch.Generations
			return compile(ch.Objects, append(next.filters(), ch.Came...), o), nil
		}
		c.reorder()
	}
	c.add(ch.Came)
	return c.p, nil
}

// same reports whether the callouts that filters call are as objects say.
func (p *Program) same(objects *Checker) bool {
	for id, ref := range p.callouts {
		if o := objects.callouts[id]; o != nil && o.Provider != ref.provider {
			return false
		}
	}
	return true
}

// filters are all filters of the program, in no order.
func (p *Program) filters() (out []*fwpm.Filter) {
	for l := range fwpm.LayerID(fwpm.NumLayers) {
		if p.layer(l) != nil {
			out = append(out, p.layer(l).filters()...)
		}
	}
	return out
}

func (l *layer) filters() (out []*fwpm.Filter) {
	seen := map[*filter]bool{}
	for _, g := range l.groups {
		g.index.each(func(f *filter) {
			if !seen[f] {
				seen[f], out = true, append(out, f.Filter)
			}
		})
	}
	return out
}
