package policyfile

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// compile lets the compiler's checks look for the mistakes that are not about
// the text, and gives them their place. Where the reader complained already,
// they are left out.
func (r *reader) compile() {
	check, err := arbitrate.NewChecker(&r.Policy)
	errs := unjoin(err)
	for i := range r.Policy.Filters {
		errs = append(errs, unjoin(check.Filter(&r.Policy.Filters[i]))...)
	}
	found := slices.Clone(r.list)
	for _, err := range errs {
		p, what := r.locate(err)
		if !slices.ContainsFunc(found, func(q Problem) bool { return q.File == r.file && place{q.Line, q.Column} == p }) {
			r.fail(p, "", "%s", what)
		}
	}
}

// unjoin lists the errors in err.
func unjoin(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// parts says which part of a condition an error is about.
var parts = map[fwp.Error]string{
	fwp.ErrNeverMatch:         ".value",
	fwp.ErrInvalidParameter:   ".value",
	fwp.ErrConditionNotFound:  ".field",
	fwp.ErrMatchTypeMismatch:  ".match",
	fwp.ErrTypeMismatch:       ".value",
	fwp.ErrInvalidRange:       ".value",
	fwp.ErrInvalidNetMask:     ".value",
	fwp.ErrDuplicateCondition: ".value",
}

// locate finds the place of a mistake in an object: that of the key, else of
// the object, else of the file.
func (r *reader) locate(err error) (place, string) {
	var o *fwpm.ObjectError
	if !errors.As(err, &o) {
		return start, err.Error()
	}
	field, what := o.Field, o.Err.Error()
	if errors.Is(o.Err, fwp.ErrIncompatibleLayer) {
		what = r.appliesAt(o.ID)
	}
	var code fwp.Error
	if errors.As(o.Err, &code) && strings.HasPrefix(field, "conditions[") {
		field += parts[code]
	}
	for _, at := range []object{{o.Kind, o.ID, field}, {o.Kind, o.ID, ""}} {
		if p, ok := r.places[at]; ok {
			return p, what
		}
	}
	return start, err.Error()
}

// appliesAt says where the callout of a filter applies.
func (r *reader) appliesAt(filter string) string {
	f := r.Policy.Filters[slices.IndexFunc(r.Policy.Filters, func(f fwpm.Filter) bool { return fmt.Sprint(f.ID) == filter })]
	c := r.Policy.Callouts[slices.IndexFunc(r.Policy.Callouts, func(c fwpm.Callout) bool { return c.ID == f.Callout })]
	return fmt.Sprintf("callout %q applies only at %s (applicable_layer), and this filter is at %s", c.ID, c.ApplicableLayer, f.Layer)
}

// matches lists the match types that fit a field at the layers of both families
// (BFE-CND-04).
func matches(c fwpm.ConditionID, l fwpm.LayerID) []string {
	v4, v6 := typeOf(c, l.ForFamily(false)).data, typeOf(c, l.ForFamily(true)).data
	var fit []string
	for _, name := range fwp.MatchNames() {
		if m, _ := fwp.ParseMatch(name); m.Fits(v4) && m.Fits(v6) {
			fit = append(fit, name)
		}
	}
	return fit
}
