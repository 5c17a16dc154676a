package conformance

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"

	"pgregory.net/rapid"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// The small worlds that policies and connections are drawn from: small, so that
// they meet, and with the ends of every range.
var (
	numbers    = []uint64{0, 1, 2, 5, 6, 7, 80, 443, 254, 255, 256, 65534, 65535, 65536, math.MaxUint32 - 1, math.MaxUint32, math.MaxUint64}
	texts      = []string{"", "/", "/bin", "/bin/sh", "/bin/sh\x00", "/usr/bin", "sh", "S-1", "\xff"}
	sids       = []fwp.SID{fwp.SIDEveryone, fwp.UserSID(0), fwp.UserSID(7), fwp.GroupSID(7), fwp.GroupSID(0), "S-1-5-18", "S-1-15-2-1"}
	addresses4 = addresses("0.0.0.0", "10.0.0.4", "10.0.0.5", "10.0.0.6", "127.0.0.1", "198.51.100.7", "255.255.255.255", "224.0.0.1")
	addresses6 = addresses("::", "::1", "2001:db8::4", "2001:db8::5", "2001:db8::6", "2001:db8:0:1::", "::ffff:10.0.0.5", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
	lengths    = []int{0, 1, 8, 24, 31, 32, 48, 63, 64, 65, 127, 128}
)

const (
	permitAction = fwp.ActionPermit
	matchTypes   = fwp.MatchNotPrefix + 1
)

// conditionTypes are the data types that conditions of the ALE layers can have.
var conditionTypes = []fwp.DataType{fwp.Empty, fwp.Uint8, fwp.Uint16, fwp.Uint32, fwp.Uint64, fwp.ByteArray16, fwp.ByteBlob, fwp.SIDType,
	fwp.SecurityDescriptorType, fwp.V4AddrMask, fwp.V6AddrMask, fwp.RangeType}

// fitting reports whether a condition of that type and match is possible.
func fitting(t fwp.DataType, m fwp.Match) bool {
	switch t {
	case fwp.Empty:
		return m == fwp.MatchEqual
	case fwp.V4AddrMask, fwp.V6AddrMask:
		return m == fwp.MatchEqual || m == fwp.MatchNotEqual
	case fwp.RangeType:
		return m == fwp.MatchRange
	}
	return m != fwp.MatchRange && m.Fits(t)
}

// typeIndex brings the masks and ranges, from 0x100 on, next to the others.
func typeIndex(t fwp.DataType) int {
	if t >= fwp.V4AddrMask {
		return 24 + int(t-fwp.V4AddrMask)
	}
	return int(t)
}

func addresses(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func pick[T any](t *rapid.T, from []T) T { return from[rapid.IntRange(0, len(from)-1).Draw(t, "pick")] }

func chance(t *rapid.T, in int) bool { return rapid.IntRange(0, in-1).Draw(t, "chance") == in-1 }

// drawPolicy makes a policy that the engine accepts, with filters of one layer.
func drawPolicy(t *rapid.T, l fwpm.LayerID, callouts []*answering) *fwpm.Policy {
	p := new(fwpm.Policy)
	names := []fwpm.SublayerID{"", fwpm.SublayerUniversal, fwpm.SublayerInspection}
	for i := range rapid.IntRange(0, 4).Draw(t, "sublayers") {
		s := fwpm.Sublayer{ID: fwpm.SublayerID(fmt.Sprint("sublayer", i)), Name: "s", Weight: pick(t, []uint16{0, 1, 0x7fff, 0x8000, 0x8001, 0xffff})}
		p.Sublayers, names = append(p.Sublayers, s), append(names, s.ID)
	}
	for _, c := range callouts {
		p.Callouts = append(p.Callouts, fwpm.Callout{ID: c.id, Name: "c"})
	}
	check, err := arbitrate.NewChecker(p)
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]int, 40)
	for i := range ids {
		ids[i] = i + 1
	}
	for _, id := range rapid.Permutation(ids).Draw(t, "ids")[:pick(t, []int{6, 8, 10, 20, 0, 40, 1, 2, 4})] {
		f := fwpm.Filter{ID: fwpm.FilterID(id), Name: "f", Layer: l, Sublayer: pick(t, names), Weight: drawWeight(t),
			Action:           pick(t, []fwp.Action{fwp.ActionCalloutUnknown, fwp.ActionPermit, fwp.ActionBlock, fwp.ActionCalloutUnknown, fwp.ActionCalloutTerminating, fwp.ActionCalloutInspection}),
			ClearActionRight: chance(t, 4), PermitIfCalloutUnregistered: chance(t, 2)}
		if f.Action.CallsOut() {
			f.Callout = pick(t, callouts).id
		}
		f.Conditions = drawConditions(t, l)
		if err := check.Filter(&f); err != nil {
			t.Fatal(err)
		}
		p.Filters = append(p.Filters, f)
	}
	return p
}

func drawWeight(t *rapid.T) fwpm.Weight {
	switch rapid.IntRange(0, 3).Draw(t, "weight") {
	case 0:
		return fwpm.Weight{Type: fwp.Uint8, Value: uint64(rapid.IntRange(0, 15).Draw(t, "range"))}
	case 1:
		return fwpm.Weight{Type: fwp.Uint64, Value: pick(t, []uint64{0, 5, 1 << 59, 1 << 60, 15 << 60, math.MaxUint64})}
	}
	return fwpm.Weight{}
}

// drawConditions leaves out what the checker refuses.
func drawConditions(t *rapid.T, l fwpm.LayerID) (out []fwpm.Condition) {
	for range pick(t, []int{0, 0, 1, 2, 0, 3, 4}) {
		c := drawCondition(t, l)
		f := fwpm.Filter{ID: 1, Name: "f", Layer: l, Action: fwp.ActionBlock, Conditions: append(out[:len(out):len(out)], c)}
		check, _ := arbitrate.NewChecker(new(fwpm.Policy))
		if check.Filter(&f) == nil {
			out = f.Conditions
		}
	}
	return out
}

func drawCondition(t *rapid.T, l fwpm.LayerID) fwpm.Condition {
	c := fwpm.Condition{Field: pick(t, l.Fields())}
	if chance(t, 2) { // fields that connections often have
		c.Field = pick(t, []fwpm.ConditionID{fwpm.ConditionALEAppID, fwpm.ConditionALEUserID, fwpm.ConditionIPLocalAddress, fwpm.ConditionIPLocalPort, fwpm.ConditionFlags})
	}
	if l.Offers(fwpm.ConditionPeerName) && chance(t, 6) {
		c.Field = fwpm.ConditionPeerName
	}
	typ := c.Field.DataType(l)
	if chance(t, 12) {
		return c // FWP_EMPTY
	}
	var fits []fwp.Match
	for m := range matchTypes {
		if m.Fits(typ) || typ == fwp.TokenAccessInformation && m == fwp.MatchEqual {
			fits = append(fits, m)
		}
	}
	c.Match = pick(t, fits)
	switch {
	case c.Match == fwp.MatchRange:
		c.Value = fwp.Between(drawValue(t, typ), drawValue(t, typ))
	case typ == fwp.TokenAccessInformation:
		c.Value = drawDescriptor(t)
	case c.Match <= fwp.MatchNotEqual && chance(t, 2) && typ == fwp.Uint32:
		c.Value = drawMask(t, addresses4)
	case c.Match <= fwp.MatchNotEqual && chance(t, 2) && typ == fwp.ByteArray16:
		c.Value = drawMask(t, addresses6)
	default:
		c.Value = drawValue(t, typ)
	}
	return c
}

func drawMask(t *rapid.T, from []netip.Addr) fwp.Value {
	a := pick(t, from)
	return fwp.Mask(netip.PrefixFrom(a, min(pick(t, lengths), a.BitLen())))
}

func drawDescriptor(t *rapid.T) fwp.Value {
	sd := new(fwp.SecurityDescriptor)
	for range rapid.IntRange(0, 3).Draw(t, "aces") {
		sd.ACEs = append(sd.ACEs, fwp.ACE{Deny: chance(t, 3), Mask: pick(t, []uint32{1, 1, 2, 3}), SID: pick(t, sids)})
	}
	return fwp.Value{Type: fwp.SecurityDescriptorType, SD: sd}
}

// drawValue makes a value that a field of that type can have.
func drawValue(t *rapid.T, typ fwp.DataType) fwp.Value {
	switch typ {
	case fwp.ByteArray16:
		return fwp.Addr(pick(t, addresses6))
	case fwp.ByteBlob:
		return fwp.Blob(pick(t, texts))
	case fwp.SIDType:
		return fwp.Value{Type: typ, Text: string(pick(t, sids))}
	case fwp.TokenAccessInformation:
		return fwp.Value{Type: typ, Token: &fwp.Token{User: pick(t, sids), Groups: []fwp.SID{pick(t, sids)}}}
	}
	bits := 4 << typ // 8 for FWP_UINT8, which is 1
	return fwp.Value{Type: typ, Uint: pick(t, numbers) & (1<<bits - 1)}
}

// An answering callout always gives the same answer to the same call.
type answering struct {
	id         fwpm.CalloutID
	registered bool
	Action     fwp.Action // 0: not written
	Fails      string     // "", "error" or "panic"
	Hard       bool
	Absorb     bool
	Target     netip.AddrPort // valid: redirects
	Acquires   int            // that way, and how often; 0: by the verdict
	Applies    int            // how often it applies what it acquired
	Reauth     bool           // wants to hear of changes by others
	Pends      string         // "", "final" or "again"
}

func (c *answering) String() string { return fmt.Sprintf("%+v", *c) }

func drawCallouts(t *rapid.T) (out []*answering) {
	for i := range 4 {
		c := &answering{id: fwpm.CalloutID(fmt.Sprint("callout", i)), registered: !chance(t, 6), Fails: pick(t, []string{"", "", "", "", "", "", "", "error", "panic"}),
			Action: pick(t, []fwp.Action{fwp.ActionContinue, fwp.ActionPermit, fwp.ActionBlock, 0, fwp.ActionPermit, fwp.ActionBlock, fwp.ActionNone, fwp.ActionCalloutTerminating}),
			Hard:   chance(t, 3), Absorb: chance(t, 4), Reauth: chance(t, 2), Pends: pick(t, []string{"", "", "", "final", "again"})}
		if !chance(t, 3) {
			c.Target = netip.AddrPortFrom(pick(t, addresses4), 8080)
			c.Acquires, c.Applies = rapid.IntRange(0, 2).Draw(t, "acquires"), rapid.IntRange(0, 2).Draw(t, "applies")
		}
		out = append(out, c)
	}
	return out
}

func (c *answering) Classify(ctx context.Context, call *fwps.Call, v *fwps.Verdict) error {
	a := ctx.Value(arbiterKey{}).(*arbiter)
	a.seen = append(a.seen, sight{call.Filter.ID, call.State, call.Rights, uint32(call.In.ConditionFlags()), uint32(call.In.ReauthorizeReason), a.d.Versions(), call.FlowContext})
	for range c.Acquires {
		c.acquire(call)
	}
	for range c.Applies {
		call.ApplyModifiedLayerData(c.flags())
	}
	c.write(v)
	if c.Pends != "" {
		c.pend(call)
	}
	if c.Fails == "panic" {
		panic("failed")
	}
	if c.Fails == "error" {
		return errors.New("failed")
	}
	return nil
}

func (c *answering) flags() fwps.ClassifyFlags {
	if c.Reauth {
		return fwps.ReauthorizeIfModifiedByOthers
	}
	return 0
}

// acquire changes the request, if there is one that may be changed.
func (c *answering) acquire(call *fwps.Call) {
	if r, err := call.AcquireConnectRequest(); err == nil {
		r.Remote, r.LocalRedirectTargetPID, r.LocalRedirectHandle = c.Target, 7, call.RedirectHandle
	}
	if r, err := call.AcquireBindRequest(); err == nil {
		r.Local = c.Target
	}
}

func (c *answering) write(v *fwps.Verdict) {
	if c.Action != 0 {
		v.Action, v.ClearActionRight = c.Action, c.Hard
	}
	v.Absorb, v.Reason = c.Absorb, string(c.id)
	if c.Target.IsValid() && c.Acquires == 0 {
		v.Redirect, v.To, v.TargetPID, v.NoHandle, v.ReauthorizeIfModifiedByOthers = true, c.Target, 7, c.Hard, c.Reauth
		v.Context = append(v.Context, c.id...)
	}
}

// pend holds the classification and completes it at once.
func (c *answering) pend(call *fwps.Call) {
	if p, err := call.PendClassify(); err == nil {
		final := new(fwps.Verdict)
		final.Reset()
		c.write(final)
		if c.Pends == "again" && (c.Absorb || call.In.Flags&fwp.FlagIsReauthorize == 0) { // now and then without end
			final = nil
		}
		p.Complete(final)
	}
	if p, err := call.PendOperation(); err == nil {
		p.Complete()
	}
}
