package arbitrate

import (
	"errors"
	"fmt"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// MaxCallouts is how many callouts a policy can have (CO-REG-07).
const MaxCallouts = 100_000

// A Checker says what is wrong with objects, given the objects they can refer to.
type Checker struct {
	providers map[fwpm.ProviderID]bool
	contexts  map[fwpm.ProviderContextID]bool
	sublayers map[fwpm.SublayerID]uint16
	callouts  map[fwpm.CalloutID]*fwpm.Callout
	filters   map[fwpm.FilterID]bool
	errs      []error
}

// builtinSublayers need not be added, and cannot be changed or deleted.
var builtinSublayers = map[fwpm.SublayerID]uint16{
	fwpm.SublayerUniversal: fwpm.SublayerUniversalWeight, fwpm.SublayerInspection: 0,
}

// NewChecker reads the objects of a policy but its filters. Errors are
// *fwpm.ObjectError, joined.
func NewChecker(p *fwpm.Policy) (*Checker, error) {
	c := &Checker{providers: map[fwpm.ProviderID]bool{}, contexts: map[fwpm.ProviderContextID]bool{},
		sublayers: map[fwpm.SublayerID]uint16{}, callouts: map[fwpm.CalloutID]*fwpm.Callout{}, filters: map[fwpm.FilterID]bool{}}
	for id, w := range builtinSublayers {
		c.sublayers[id] = w
	}
	for _, o := range p.Providers {
		if c.providers[o.ID] {
			c.fail("provider", string(o.ID), "id", fwp.ErrAlreadyExists)
		}
		c.providers[o.ID] = true
	}
	for _, o := range p.ProviderContexts {
		if c.contexts[o.ID] {
			c.fail("provider context", string(o.ID), "id", fwp.ErrAlreadyExists)
		}
		c.provider("provider context", string(o.ID), o.Provider)
		c.contexts[o.ID] = true
	}
	for _, o := range p.Sublayers {
		if _, dup := c.sublayers[o.ID]; dup { // of a built-in one too
			c.fail("sublayer", string(o.ID), "id", fwp.ErrAlreadyExists)
			continue
		}
		c.provider("sublayer", string(o.ID), o.Provider)
		c.sublayers[o.ID] = o.Weight
	}
	if len(c.sublayers) > 1<<16 {
		c.fail("sublayer", "", "", fwp.ErrTooManySublayers) // BFE-SUB-04
	}
	for i := range p.Callouts {
		c.callout(&p.Callouts[i])
	}
	if len(c.callouts) > MaxCallouts {
		c.fail("callout", "", "", fwp.ErrTooManyCallouts)
	}
	return c, errors.Join(c.errs...)
}

func (c *Checker) callout(o *fwpm.Callout) {
	if c.callouts[o.ID] != nil {
		c.fail("callout", string(o.ID), "id", fwp.ErrAlreadyExists)
	}
	if o.ApplicableLayer != 0 && !o.ApplicableLayer.Valid() {
		c.fail("callout", string(o.ID), "applicable layer", fwp.ErrLayerNotFound)
	}
	c.provider("callout", string(o.ID), o.Provider)
	c.callouts[o.ID] = o
}

func (c *Checker) fail(kind, id, field string, err error) {
	c.errs = append(c.errs, &fwpm.ObjectError{Kind: kind, ID: id, Field: field, Err: err})
}

func (c *Checker) provider(kind, id string, p fwpm.ProviderID) {
	if p != "" && !c.providers[p] {
		c.fail(kind, id, "provider", fwp.ErrProviderNotFound)
	}
}

// Filter checks one filter and remembers its identifier. Errors are
// *fwpm.ObjectError, joined.
func (c *Checker) Filter(f *fwpm.Filter) error {
	c.errs = nil
	id := fmt.Sprint(f.ID)
	bad := func(field string, err error) { c.fail("filter", id, field, err) }
	switch {
	case f.ID == 0:
		bad("id", fwp.ErrInvalidParameter)
	case c.filters[f.ID]:
		bad("id", fwp.ErrAlreadyExists)
	}
	c.filters[f.ID] = true
	if f.Name == "" {
		bad("name", fwp.ErrNullDisplayName) // BFE-OBJ-05
	}
	if f.Persistent && f.Boottime {
		bad("boottime", fwp.ErrInvalidFlags) // BFE-OBJ-07
	}
	c.provider("filter", id, f.Provider)
	if f.ProviderContext != "" && !c.contexts[f.ProviderContext] {
		bad("provider_context", fwp.ErrProviderContextNotFound)
	}
	if _, ok := c.sublayers[f.Sublayer]; !ok && f.Sublayer != "" {
		bad("sublayer", fwp.ErrSublayerNotFound)
	}
	if field, err := c.action(f); err != nil {
		bad(field, err)
	}
	if _, err := EffectiveWeight(f); err != nil {
		bad("weight", err)
	}
	if !f.Layer.Valid() {
		bad("layer", fwp.ErrLayerNotFound)
		return errors.Join(c.errs...) // Its fields are not known.
	}
	seen := map[conditionKey]bool{}
	for i := range f.Conditions {
		cond := &f.Conditions[i]
		field := fmt.Sprintf("conditions[%d]", i)
		err := checkCondition(f.Layer, cond)
		key := keyOf(cond)
		if err == nil && seen[key] {
			err = fwp.ErrDuplicateCondition // AMB-38
		}
		if err != nil {
			bad(field, err)
		}
		seen[key] = true
	}
	return errors.Join(c.errs...)
}

// A conditionKey is equal for conditions that are the same (AMB-38).
type conditionKey struct {
	field       fwpm.ConditionID
	match       fwp.Match
	typ         fwp.DataType
	value, high string
}

func keyOf(c *fwpm.Condition) conditionKey {
	k := conditionKey{c.Field, c.Match, c.Value.Type, "", ""}
	if r := c.Value.Range; r != nil {
		k.value, k.high = r.Low.String(), r.High.String()
		return k
	}
	k.value = c.Value.String()
	return k
}

// action is ARB-11.
func (c *Checker) action(f *fwpm.Filter) (field string, err error) {
	switch f.Action {
	case fwp.ActionBlock, fwp.ActionPermit:
		if f.Callout != "" {
			return "callout", fwp.ErrInvalidActionType
		}
		return "", nil
	case fwp.ActionCalloutUnknown, fwp.ActionCalloutTerminating, fwp.ActionCalloutInspection:
	default:
		return "action", fwp.ErrInvalidActionType
	}
	switch o := c.callouts[f.Callout]; {
	case o == nil:
		return "callout", fwp.ErrCalloutNotFound
	case o.ApplicableLayer != 0 && o.ApplicableLayer != f.Layer:
		return "callout", fwp.ErrIncompatibleLayer
	}
	return "", nil
}

func checkCondition(l fwpm.LayerID, c *fwpm.Condition) error {
	if !l.Offers(c.Field) {
		return fwp.ErrConditionNotFound // BFE-CND-02
	}
	want, v := c.Field.DataType(l), &c.Value
	switch v.Type {
	case fwp.Empty:
		if c.Match != fwp.MatchEqual {
			return fwp.ErrMatchTypeMismatch // BFE-CND-06
		}
		return nil
	case fwp.V4AddrMask, fwp.V6AddrMask:
		return checkMask(want, c)
	case fwp.RangeType:
		return checkRange(want, c)
	}
	if want == fwp.TokenAccessInformation {
		want = fwp.SecurityDescriptorType // A token is compared with nothing else.
	}
	if v.Type != want {
		return fwp.ErrTypeMismatch // BFE-CND-03
	}
	switch {
	case !c.Match.Fits(v.Type), c.Match == fwp.MatchRange:
		return fwp.ErrMatchTypeMismatch // BFE-CND-04
	case v.Type == fwp.SecurityDescriptorType && v.SD == nil:
		return fwp.ErrInvalidParameter
	case v.Type == fwp.SIDType && !fwp.SID(v.Text).Valid():
		return fwp.ErrInvalidParameter
	case v.Type == fwp.ByteArray16 && !v.Addr.Is6():
		return fwp.ErrTypeMismatch
	case v.Type.Unsigned() && v.Uint > v.Type.Max():
		return fwp.ErrTypeMismatch // no value of the type
	}
	return checkSense(c)
}

// checkMask is the exception of BFE-CND-03 for masks, which fit every field of 32
// or 128 bits. NOT_EQUAL goes with a mask because such fields are sortable.
func checkMask(want fwp.DataType, c *fwpm.Condition) error {
	p := c.Value.Prefix
	switch {
	case c.Value.Type == fwp.V4AddrMask && want != fwp.Uint32 || c.Value.Type == fwp.V6AddrMask && want != fwp.ByteArray16:
		return fwp.ErrTypeMismatch
	case !p.IsValid() || p.Addr().Is4() != (want == fwp.Uint32):
		return fwp.ErrInvalidNetMask // BFE-CND-05
	case c.Match != fwp.MatchEqual && c.Match != fwp.MatchNotEqual:
		return fwp.ErrMatchTypeMismatch
	}
	if c.Match == fwp.MatchNotEqual && p.Bits() == 0 {
		return fwp.ErrNeverMatch
	}
	return nil
}

func checkRange(want fwp.DataType, c *fwpm.Condition) error {
	r := c.Value.Range
	switch {
	case c.Match != fwp.MatchRange || !want.Sortable():
		return fwp.ErrMatchTypeMismatch
	case r == nil:
		return fwp.ErrInvalidRange
	case r.Low.Type != r.High.Type:
		return fwp.ErrInvalidRange // BFE-CND-05: low and high of one type
	case r.Low.Type != want:
		return fwp.ErrTypeMismatch
	case want == fwp.ByteArray16 && !(r.Low.Addr.Is6() && r.High.Addr.Is6()):
		return fwp.ErrTypeMismatch
	case r.Low.Compare(r.High) > 0:
		return fwp.ErrInvalidRange
	case want.Unsigned() && r.High.Uint > want.Max():
		return fwp.ErrTypeMismatch
	}
	return nil
}

// checkSense finds conditions that no value can meet (BFE-CND-05).
func checkSense(c *fwpm.Condition) error {
	v := &c.Value
	never := false
	switch c.Match {
	case fwp.MatchFlagsAnySet:
		never = v.Uint == 0
	case fwp.MatchLess:
		never = v.Type.Unsigned() && v.Uint == 0 || v.Type == fwp.ByteBlob && v.Text == "" || v.Type == fwp.ByteArray16 && v.Addr.IsUnspecified()
	case fwp.MatchGreater:
		never = v.Type.Unsigned() && v.Uint == v.Type.Max() || v.Type == fwp.ByteArray16 && !v.Addr.Next().IsValid()
	}
	if never {
		return fwp.ErrNeverMatch
	}
	return nil
}
