package host

import (
	"errors"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// admit says whether o may be added. What is right about an object by itself, and
// about what it refers to, arbitrate knows: it is shown a policy of just those.
func (w *objects) admit(o *object) error {
	if w.get(o.key) != nil {
		return o.fail("", fwp.ErrAlreadyExists)
	}
	if w.count[o.kind] >= kinds[o.kind].limit {
		return o.fail("", kinds[o.kind].tooMany)
	}
	errs := []error{o.flags()}
	if o.name == "" && o.filter == nil { // A filter's is checked below.
		errs = append(errs, o.fail("name", fwp.ErrNullDisplayName)) // BFE-OBJ-05
	}
	p := new(fwpm.Policy)
	w.closure(p, o, map[key]bool{})
	check, err := arbitrate.NewChecker(p)
	errs = append(errs, err)
	if o.filter != nil {
		errs = append(errs, check.Filter(o.filter))
	}
	return errors.Join(append(errs, w.lifetimes(o))...)
}

// closure collects in p the object and all it refers to, filters left out.
func (w *objects) closure(p *fwpm.Policy, o *object, seen map[key]bool) {
	if o == nil || seen[o.key] {
		return
	}
	seen[o.key] = true
	for _, r := range o.refs {
		w.closure(p, w.get(r.key), seen)
	}
	if o.filter == nil && !o.builtin {
		appendTo(p, o)
	}
}

// flags checks what the caller may not set (BFE-OBJ-07), and that a name is there.
func (o *object) flags() error {
	switch {
	case o.output != "":
		return o.fail(o.output, fwp.ErrInvalidFlags)
	case o.filter == nil && o.key.name == "":
		return o.fail("id", fwp.ErrInvalidParameter)
	case o.owner != nil && o.stored: // A dynamic object cannot be persistent too.
		return o.fail("", fwp.ErrDynamicSessionInProgress)
	}
	return nil
}

// lifetimes refuses a reference to an object that can go earlier (BFE-OBJ-03).
func (w *objects) lifetimes(o *object) error {
	var errs []error
	for _, r := range o.refs {
		if to := w.get(r.key); to != nil && !outlives(to, o) {
			errs = append(errs, o.fail(r.field, fwp.ErrLifetimeMismatch))
		}
	}
	return errors.Join(errs...)
}

// outlives reports whether to is there for as long as o. A persistent object of
// another provider may not be loaded when that provider's service is off.
func outlives(to, o *object) bool {
	switch {
	case to.builtin:
		return true
	case to.owner != nil:
		return to.owner == o.owner
	case o.stored:
		return to.stored && (to.provider == "" || to.provider == o.provider)
	}
	return true
}

// check is everything that is wrong with a whole policy by itself.
func check(p *fwpm.Policy) error {
	c, err := arbitrate.NewChecker(p)
	errs := []error{err}
	for i := range p.Filters {
		errs = append(errs, c.Filter(&p.Filters[i]))
	}
	return errors.Join(errs...)
}
