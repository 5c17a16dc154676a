// Package arbitrate is WFP filter arbitration: which of a policy's filters
// decide a classification. It is pure but for the callouts it calls.
package arbitrate

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
)

// A Slot is where a registered callout is found. Readers never lock.
type Slot struct {
	ID      fwpm.CalloutID
	current atomic.Pointer[registration]
}

type registration struct {
	callout fwps.Callout
	handle  redirect.Handle
}

// Set registers c with its redirect handle; a nil c takes the callout away.
func (s *Slot) Set(c fwps.Callout, h redirect.Handle) {
	if c == nil {
		s.current.Store(nil)
		return
	}
	s.current.Store(&registration{c, h})
}

// Registered reports whether the slot has a callout.
func (s *Slot) Registered() bool { return s.current.Load() != nil }

// A Program is a policy made ready to classify. It is immutable.
type Program struct {
	layers [fwpm.NumLayers][]sublayer
}

type sublayer struct {
	id      fwpm.SublayerID
	filters []filter
}

type filter struct {
	*fwpm.Filter
	weight uint64
	groups []group
	slot   *Slot
}

// A group holds the conditions on one field: alternatives (BFE-CND-01).
type group []fwpm.Condition

// Compile checks a policy and makes it a Program. Every mistake comes back, as
// *fwpm.ObjectError joined together. lookup returns the slot of a callout.
func Compile(p *fwpm.Policy, lookup func(fwpm.CalloutID) *Slot) (*Program, error) {
	p = p.Clone()
	c := &compiler{providers: map[fwpm.ProviderID]bool{}, sublayers: map[fwpm.SublayerID]uint16{fwpm.SublayerUniversal: fwpm.SublayerUniversalWeight}, callouts: map[fwpm.CalloutID]bool{}, filters: map[fwpm.FilterID]bool{}}
	c.objects(p)
	type entry struct {
		weight uint16
		sublayer
	}
	var byLayer [fwpm.NumLayers]map[fwpm.SublayerID]*entry
	for i := range p.Filters {
		f, ok := c.filter(&p.Filters[i])
		if !ok {
			continue
		}
		if f.Action.CallsOut() {
			f.slot = lookup(f.Callout)
		}
		if byLayer[f.Layer] == nil {
			byLayer[f.Layer] = map[fwpm.SublayerID]*entry{}
		}
		e := byLayer[f.Layer][f.Sublayer]
		if e == nil {
			e = &entry{c.sublayers[f.Sublayer], sublayer{id: f.Sublayer}}
			byLayer[f.Layer][f.Sublayer] = e
		}
		e.filters = append(e.filters, f)
	}
	if len(c.errs) > 0 {
		return nil, errors.Join(c.errs...)
	}
	prog := new(Program)
	for l, m := range byLayer {
		es := make([]*entry, 0, len(m))
		for _, e := range m {
			slices.SortFunc(e.filters, func(a, b filter) int {
				return cmp.Or(cmp.Compare(b.weight, a.weight), cmp.Compare(a.ID, b.ID)) // AMB-37
			})
			es = append(es, e)
		}
		slices.SortFunc(es, func(a, b *entry) int { return cmp.Or(cmp.Compare(b.weight, a.weight), cmp.Compare(a.id, b.id)) })
		for _, e := range es {
			prog.layers[l] = append(prog.layers[l], e.sublayer)
		}
	}
	return prog, nil
}

type compiler struct {
	errs      []error
	providers map[fwpm.ProviderID]bool
	sublayers map[fwpm.SublayerID]uint16
	callouts  map[fwpm.CalloutID]bool
	filters   map[fwpm.FilterID]bool
}

func (c *compiler) fail(kind, id, field string, err error) {
	c.errs = append(c.errs, &fwpm.ObjectError{Kind: kind, ID: id, Field: field, Err: err})
}

func (c *compiler) objects(p *fwpm.Policy) {
	for _, o := range p.Providers {
		if c.providers[o.ID] {
			c.fail("provider", string(o.ID), "", fwp.ErrAlreadyExists)
		}
		c.providers[o.ID] = true
	}
	for _, o := range p.Sublayers {
		if _, dup := c.sublayers[o.ID]; dup && o.ID != fwpm.SublayerUniversal {
			c.fail("sublayer", string(o.ID), "", fwp.ErrAlreadyExists)
		}
		c.provider("sublayer", string(o.ID), o.Provider)
		c.sublayers[o.ID] = o.Weight
	}
	if len(c.sublayers) > 1<<16 {
		c.fail("sublayer", "", "", fwp.ErrTooManySublayers)
	}
	for _, o := range p.Callouts {
		if c.callouts[o.ID] {
			c.fail("callout", string(o.ID), "", fwp.ErrAlreadyExists)
		}
		c.provider("callout", string(o.ID), o.Provider)
		c.callouts[o.ID] = true
	}
}

func (c *compiler) provider(kind, id string, p fwpm.ProviderID) {
	if p != "" && !c.providers[p] {
		c.fail(kind, id, "provider", fwp.ErrProviderNotFound)
	}
}

func (c *compiler) filter(f *fwpm.Filter) (filter, bool) {
	id, before := fmt.Sprint(f.ID), len(c.errs)
	bad := func(field string, err error) { c.fail("filter", id, field, err) }
	if f.ID == 0 || c.filters[f.ID] {
		bad("id", fwp.ErrAlreadyExists)
	}
	c.filters[f.ID] = true
	if f.Name == "" {
		bad("name", fwp.ErrNullDisplayName)
	}
	c.provider("filter", id, f.Provider)
	if f.Sublayer == "" {
		f.Sublayer = fwpm.SublayerUniversal
	}
	if _, ok := c.sublayers[f.Sublayer]; !ok {
		bad("sublayer", fwp.ErrSublayerNotFound)
	}
	switch f.Action {
	case fwp.ActionBlock, fwp.ActionPermit:
		if f.Callout != "" {
			bad("callout", fwp.ErrInvalidActionType)
		}
	case fwp.ActionCalloutUnknown, fwp.ActionCalloutTerminating, fwp.ActionCalloutInspection:
		if !c.callouts[f.Callout] {
			bad("callout", fwp.ErrCalloutNotFound)
		}
	default:
		bad("action", fwp.ErrInvalidActionType) // ARB-11
	}
	if !f.Layer.Valid() {
		bad("layer", fwp.ErrLayerNotFound)
		return filter{}, false
	}
	out := filter{Filter: f}
	seen := map[string]bool{}
	for i, cond := range f.Conditions {
		field := fmt.Sprintf("conditions[%d]", i)
		if err := checkCondition(f.Layer, cond); err != nil {
			bad(field, err)
			continue
		}
		key := fmt.Sprintf("%v %v %v %v", cond.Field, cond.Match, cond.Value, cond.Value.Range)
		if seen[key] {
			bad(field, fwp.ErrDuplicateCondition) // AMB-38
		}
		seen[key] = true
		out.add(cond)
	}
	w, err := effectiveWeight(f)
	if err != nil {
		bad("weight", err)
	}
	out.weight = w
	return out, len(c.errs) == before
}

func (f *filter) add(c fwpm.Condition) {
	for i := range f.groups {
		if f.groups[i][0].Field == c.Field {
			f.groups[i] = append(f.groups[i], c)
			return
		}
	}
	f.groups = append(f.groups, group{c})
}

// effectiveWeight is BFE-WGT-01. The automatic part grows with how much the
// conditions say (AMB-40).
func effectiveWeight(f *fwpm.Filter) (uint64, error) {
	switch {
	case f.Weight.Type == fwp.Uint64:
		return f.Weight.Value, nil
	case f.Weight.Type == fwp.Empty:
		return autoWeight(f), nil
	case f.Weight.Type == fwp.Uint8 && f.Weight.Value <= 15:
		return f.Weight.Value<<60 | autoWeight(f), nil
	}
	return 0, fwp.ErrInvalidWeight
}

func autoWeight(f *fwpm.Filter) uint64 {
	best := map[fwpm.ConditionID]uint64{}
	for _, c := range f.Conditions {
		s := specificity(c)
		if old, ok := best[c.Field]; !ok || s < old { // Alternatives are as vague as the vaguest.
			best[c.Field] = s
		}
	}
	var w uint64
	for _, s := range best {
		w += s << 32
	}
	return min(w, 1<<60-1)
}

func specificity(c fwpm.Condition) uint64 {
	switch {
	case c.Value.Type == fwp.V4AddrMask:
		return 1 + uint64(c.Value.Prefix.Bits())*4
	case c.Value.Type == fwp.V6AddrMask:
		return 1 + uint64(c.Value.Prefix.Bits())
	case c.Match == fwp.MatchEqual || c.Match == fwp.MatchEqualCaseInsensitive:
		return 130
	case c.Match == fwp.MatchRange:
		return 64
	}
	return 32
}

func checkCondition(l fwpm.LayerID, c fwpm.Condition) error {
	if !slices.Contains(l.Fields(), c.Field) {
		return fwp.ErrConditionNotFound // BFE-CND-02
	}
	want, v := c.Field.DataType(l), c.Value
	switch v.Type {
	case fwp.Empty:
		if c.Match != fwp.MatchEqual {
			return fwp.ErrMatchTypeMismatch // BFE-CND-06
		}
		return nil
	case fwp.V4AddrMask, fwp.V6AddrMask:
		ok := want == fwp.Uint32 && v.Type == fwp.V4AddrMask && isAddress(c.Field) || want == fwp.ByteArray16 && v.Type == fwp.V6AddrMask
		if !ok {
			return fwp.ErrTypeMismatch
		}
		if !v.Prefix.IsValid() {
			return fwp.ErrInvalidNetMask
		}
		if c.Match != fwp.MatchEqual && c.Match != fwp.MatchNotEqual {
			return fwp.ErrMatchTypeMismatch
		}
		return nil
	case fwp.RangeType:
		if c.Match != fwp.MatchRange {
			return fwp.ErrMatchTypeMismatch
		}
		if v.Range == nil || v.Range.Low.Type != want || v.Range.High.Type != want {
			return fwp.ErrTypeMismatch
		}
		if compare(v.Range.Low, v.Range.High) > 0 {
			return fwp.ErrInvalidRange
		}
		return nil
	}
	if v.Type != want {
		return fwp.ErrTypeMismatch // BFE-CND-03
	}
	return checkMatch(c.Match, want)
}

func isAddress(c fwpm.ConditionID) bool {
	return c == fwpm.ConditionIPLocalAddress || c == fwpm.ConditionIPRemoteAddress
}

// checkMatch is BFE-CND-04.
func checkMatch(m fwp.Match, t fwp.DataType) error {
	text := t == fwp.ByteBlob || t == fwp.UnicodeString
	ok := false
	switch m {
	case fwp.MatchEqual, fwp.MatchNotEqual, fwp.MatchGreater, fwp.MatchLess, fwp.MatchGreaterOrEqual, fwp.MatchLessOrEqual:
		ok = true
	case fwp.MatchFlagsAllSet, fwp.MatchFlagsAnySet, fwp.MatchFlagsNoneSet:
		ok = t >= fwp.Uint8 && t <= fwp.Uint64
	case fwp.MatchEqualCaseInsensitive, fwp.MatchPrefix, fwp.MatchNotPrefix:
		ok = text
	}
	if !ok {
		return fwp.ErrMatchTypeMismatch
	}
	return nil
}

func compare(a, b fwp.Value) int {
	switch a.Type {
	case fwp.ByteArray16:
		return a.Addr.Compare(b.Addr)
	case fwp.ByteBlob, fwp.UnicodeString:
		return strings.Compare(a.Text, b.Text)
	}
	return cmp.Compare(a.Uint, b.Uint)
}

// field reads one field of the incoming values.
func field(in *fwps.Incoming, c fwpm.ConditionID) fwp.Value {
	switch c {
	case fwpm.ConditionALEAppID:
		return text(in.AppID)
	case fwpm.ConditionALEOriginalAppID:
		return text(in.OriginalAppID)
	case fwpm.ConditionALEUserID:
		if !in.UserKnown {
			return fwp.Value{}
		}
		return fwp.U32(in.UserID)
	case fwpm.ConditionIPLocalAddress:
		return fwp.Addr(in.Local.Addr())
	case fwpm.ConditionIPRemoteAddress:
		return fwp.Addr(in.Remote.Addr())
	case fwpm.ConditionIPLocalAddressType:
		return addressType(in.Local.Addr())
	case fwpm.ConditionIPDestinationAddressType:
		return addressType(in.Remote.Addr())
	case fwpm.ConditionIPLocalPort:
		return port(in.Local)
	case fwpm.ConditionIPRemotePort:
		return port(in.Remote)
	case fwpm.ConditionIPProtocol:
		return fwp.U8(in.Protocol)
	case fwpm.ConditionFlags:
		return fwp.U32(uint32(in.Flags))
	case fwpm.ConditionDirection:
		if in.Inbound {
			return fwp.U32(1) // FWP_DIRECTION_INBOUND
		}
		return fwp.U32(0)
	case fwpm.ConditionCompartmentID:
		return fwp.U32(in.CompartmentID)
	case fwpm.ConditionALEReauthReason:
		return fwp.U32(in.ReauthReason)
	}
	return fwp.Value{}
}

func text(s string) fwp.Value {
	if s == "" {
		return fwp.Value{}
	}
	return fwp.Blob(s)
}

func port(a netip.AddrPort) fwp.Value {
	if !a.IsValid() {
		return fwp.Value{}
	}
	return fwp.U16(a.Port())
}

// addressType is NL_ADDRESS_TYPE: unspecified 0, unicast 1, anycast 2,
// multicast 3, broadcast 4.
func addressType(a netip.Addr) fwp.Value {
	switch {
	case !a.IsValid():
		return fwp.Value{}
	case a.IsUnspecified():
		return fwp.U8(0)
	case a.IsMulticast():
		return fwp.U8(3)
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fwp.U8(4)
	}
	return fwp.U8(1)
}

func (f *filter) matches(in *fwps.Incoming) bool {
	for _, g := range f.groups {
		v, any := field(in, g[0].Field), false
		for i := range g {
			if holds(&g[i], v) {
				any = true
				break
			}
		}
		if !any {
			return false
		}
	}
	return true
}

func holds(c *fwpm.Condition, v fwp.Value) bool {
	if v.Type == fwp.Empty || c.Value.Type == fwp.Empty { // BFE-CND-06
		return v.Type == c.Value.Type && c.Match == fwp.MatchEqual
	}
	switch c.Match {
	case fwp.MatchEqual:
		return equal(&c.Value, v)
	case fwp.MatchNotEqual:
		return !equal(&c.Value, v)
	case fwp.MatchGreater:
		return compare(v, c.Value) > 0
	case fwp.MatchLess:
		return compare(v, c.Value) < 0
	case fwp.MatchGreaterOrEqual:
		return compare(v, c.Value) >= 0
	case fwp.MatchLessOrEqual:
		return compare(v, c.Value) <= 0
	case fwp.MatchRange:
		return compare(v, c.Value.Range.Low) >= 0 && compare(v, c.Value.Range.High) <= 0
	case fwp.MatchFlagsAllSet:
		return v.Uint&c.Value.Uint == c.Value.Uint
	case fwp.MatchFlagsAnySet:
		return v.Uint&c.Value.Uint != 0
	case fwp.MatchFlagsNoneSet:
		return v.Uint&c.Value.Uint == 0
	case fwp.MatchEqualCaseInsensitive:
		return strings.EqualFold(v.Text, c.Value.Text)
	case fwp.MatchPrefix: // The end of the value (AMB-34).
		return strings.HasSuffix(v.Text, c.Value.Text)
	case fwp.MatchNotPrefix:
		return !strings.HasSuffix(v.Text, c.Value.Text)
	}
	return false
}

func equal(want *fwp.Value, v fwp.Value) bool {
	switch want.Type {
	case fwp.V4AddrMask:
		b := want.Prefix.Addr().As4()
		shift := 32 - want.Prefix.Bits()
		net := uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3])
		return v.Uint>>shift == net>>shift
	case fwp.V6AddrMask:
		return want.Prefix.Contains(v.Addr)
	case fwp.ByteArray16:
		return v.Addr == want.Addr
	case fwp.ByteBlob, fwp.UnicodeString:
		return v.Text == want.Text
	}
	return v.Uint == want.Uint
}
