package arbitrate_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
)

const layer = fwpm.LayerALEAuthConnectV4

type calloutFunc = func(*fwps.Call, *fwps.Verdict)

// run classifies in with filters in the sublayers high, middle and low.
func run(t *testing.T, in fwps.Incoming, callouts map[fwpm.CalloutID]calloutFunc, filters ...fwpm.Filter) *fwps.Decision {
	t.Helper()
	p := &fwpm.Policy{Sublayers: []fwpm.Sublayer{{ID: "high", Weight: 200}, {ID: "middle", Weight: 150}, {ID: "low", Weight: 100}}}
	slots := map[fwpm.CalloutID]*arbitrate.Slot{}
	declare := func(id fwpm.CalloutID) {
		if id != "" && slots[id] == nil {
			slots[id] = &arbitrate.Slot{ID: id}
			p.Callouts = append(p.Callouts, fwpm.Callout{ID: id})
		}
	}
	for i := range filters {
		f := &filters[i]
		f.ID, f.Name = fwpm.FilterID(i+1), "f"
		if f.Layer == 0 {
			f.Layer = in.Layer
		}
		declare(f.Callout)
	}
	for id, fn := range callouts {
		declare(id)
		slots[id].Set(fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error { fn(c, v); return nil }), 1)
	}
	p.Filters = filters
	prog, err := arbitrate.Compile(p, arbitrate.Options{Lookup: func(id fwpm.CalloutID) *arbitrate.Slot { return slots[id] }})
	require.NoError(t, err)
	d := new(fwps.Decision)
	prog.Classify(t.Context(), &in, d)
	return d
}

func incoming() fwps.Incoming {
	return fwps.Incoming{Layer: layer, Protocol: 6, Local: netip.MustParseAddrPort("10.0.0.5:0"), Remote: netip.MustParseAddrPort("198.51.100.7:443"), AppID: "/usr/bin/curl"}
}

func answer(a fwp.Action, hard bool) calloutFunc {
	return func(_ *fwps.Call, v *fwps.Verdict) { v.Action, v.ClearActionRight = a, hard }
}

const (
	permit, block, ask = fwp.ActionPermit, fwp.ActionBlock, fwp.ActionCalloutUnknown
)

func f(sub fwpm.SublayerID, a fwp.Action) fwpm.Filter { return fwpm.Filter{Sublayer: sub, Action: a} }

func hard(x fwpm.Filter) fwpm.Filter { x.ClearActionRight = true; return x }

func calls(sub fwpm.SublayerID, id fwpm.CalloutID) fwpm.Filter {
	return fwpm.Filter{Sublayer: sub, Action: ask, Callout: id}
}

// ARB-01..ARB-09, CO-*: each row is a rule, with the filter that decided.
func TestArbitration(t *testing.T) {
	cs := map[fwpm.CalloutID]calloutFunc{
		"continue": answer(fwp.ActionContinue, false), "permit": answer(permit, false), "hard-permit": answer(permit, true),
		"block": answer(block, false), "hard-block": answer(block, true), "nothing": func(*fwps.Call, *fwps.Verdict) {},
		"wrong": answer(fwp.ActionCalloutUnknown, false),
		"panic": func(*fwps.Call, *fwps.Verdict) { panic("boom") },
	}
	w := func(x fwpm.Filter, n uint64) fwpm.Filter {
		x.Weight = fwpm.Weight{Type: fwp.Uint64, Value: n}
		return x
	}
	for _, c := range []struct {
		rule    string
		want    fwp.Action
		by      int // filter that decided, 0 = default
		asked   int
		filters []fwpm.Filter
	}{
		{"ARB-09 nobody decides: permit", permit, 0, 0, nil},
		{"ARB-01 SC-103 continue goes on to the next filter", block, 2, 2, []fwpm.Filter{w(calls("low", "continue"), 10), w(f("low", block), 5)}},
		{"ARB-01 the first decision ends the sublayer", permit, 1, 1, []fwpm.Filter{w(f("low", permit), 10), w(f("low", block), 5)}},
		{"AMB-37 equal weight: the older filter", permit, 1, 1, []fwpm.Filter{w(f("low", permit), 5), w(f("low", block), 5)}},
		{"SC-100 a soft permit is overridden by a filter's block", block, 2, 2, []fwpm.Filter{calls("high", "permit"), f("low", block)}},
		{"SC-101 ARB-07 a hard permit is not", permit, 1, 2, []fwpm.Filter{calls("high", "hard-permit"), f("low", block)}},
		{"SC-102 ARB-06 veto", block, 2, 2, []fwpm.Filter{calls("high", "hard-permit"), calls("low", "block")}},
		{"ARB-04 a filter's permit made hard", permit, 1, 2, []fwpm.Filter{hard(f("high", permit)), f("low", block)}},
		{"ARB-05 a soft block is overridden by a permit", permit, 2, 2, []fwpm.Filter{calls("high", "block"), f("low", permit)}},
		{"ARB-03 a filter's block is hard", block, 1, 2, []fwpm.Filter{f("high", block), f("low", permit)}},
		{"AMB-35 lower sublayers are asked after a block", block, 1, 3, []fwpm.Filter{f("high", block), calls("middle", "continue"), f("low", permit)}},
		{"CO-CLS-06 a permit cannot follow a hard block", block, 1, 2, []fwpm.Filter{f("high", block), calls("low", "permit")}},
		{"CO-REG-04 missing callout blocks", block, 1, 1, []fwpm.Filter{calls("low", "absent")}},
		{"CO-CLS-11 an answer that is not written continues", permit, 0, 1, []fwpm.Filter{calls("low", "nothing")}},
		{"AMB-42 an answer that is none blocks", block, 1, 1, []fwpm.Filter{calls("low", "wrong")}},
		{"AMB-42 a panic blocks", block, 1, 1, []fwpm.Filter{calls("low", "panic")}},
		{"CO-CLS-09 an inspection callout does not decide", permit, 0, 1, []fwpm.Filter{{Sublayer: "low", Action: fwp.ActionCalloutInspection, Callout: "block"}}},
		{"CO-REG-04 missing inspection callout is ignored", permit, 0, 1, []fwpm.Filter{{Sublayer: "low", Action: fwp.ActionCalloutInspection, Callout: "absent"}}},
		{"CO-REG-04 permit if unregistered", permit, 1, 1, []fwpm.Filter{{Sublayer: "low", Action: ask, Callout: "absent", PermitIfCalloutUnregistered: true}}},
		{"BFE-SUB-02 the universal sublayer is the default", block, 1, 1, []fwpm.Filter{f("", block)}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			d := run(t, incoming(), cs, c.filters...)
			require.Equal(t, c.want, d.Action, "%+v", d.Steps)
			require.Len(t, d.Steps, c.asked)
			by := 0
			if s := d.Decider(); s != nil {
				by = int(s.Filter)
			}
			require.Equal(t, c.by, by)
		})
	}
}

// ARB-01: a filter that tests nothing is not looked for, and hides no heavier one,
// be there few filters or so many that they have an index.
func TestAFilterThatTestsNothingHidesNoHeavierOne(t *testing.T) {
	all := f("low", permit)
	all.Weight = fwpm.Weight{Type: fwp.Uint64, Value: 5}
	for _, c := range []struct {
		filters, first int
		weight         uint64
		want           fwp.Action
	}{{1, 443, 9, block}, {1, 443, 1, permit}, {1, 444, 9, permit}, {200, 443, 9, block}, {200, 443, 1, permit}, {200, 444, 9, permit}} {
		filters := []fwpm.Filter{all}
		for i := range c.filters {
			x := f("low", block)
			x.Weight = fwpm.Weight{Type: fwp.Uint64, Value: c.weight}
			x.Conditions = []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Match: fwp.MatchEqual, Value: fwp.U16(uint16(c.first + i))}}
			filters = append(filters, x)
		}
		require.Equal(t, c.want, run(t, incoming(), nil, filters...).Action, "%+v", c)
	}
}

// BFE-CND-*: each condition against the same connection.
func TestConditions(t *testing.T) {
	pfx := func(s string) fwp.Value { return fwp.Mask(netip.MustParsePrefix(s)) }
	for _, c := range []struct {
		name  string
		conds []fwpm.Condition
		want  bool
	}{
		{"BFE-CND-01 none always matches", nil, true},
		{"equal", []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Value: fwp.U16(443)}}, true},
		{"SC-104 same field is OR", []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Value: fwp.U16(80)}, {Field: fwpm.ConditionIPRemotePort, Value: fwp.U16(443)}}, true},
		{"different fields are AND", []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Value: fwp.U16(443)}, {Field: fwpm.ConditionIPProtocol, Value: fwp.U8(17)}}, false},
		{"mask", []fwpm.Condition{{Field: fwpm.ConditionIPRemoteAddress, Value: pfx("198.51.100.0/24")}}, true},
		{"other mask", []fwpm.Condition{{Field: fwpm.ConditionIPRemoteAddress, Value: pfx("198.51.101.0/24")}}, false},
		{"mask of all", []fwpm.Condition{{Field: fwpm.ConditionIPRemoteAddress, Value: pfx("0.0.0.0/0")}}, true},
		{"not equal", []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Match: fwp.MatchNotEqual, Value: fwp.U16(443)}}, false},
		{"greater", []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Match: fwp.MatchGreater, Value: fwp.U16(442)}}, true},
		{"less", []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Match: fwp.MatchLess, Value: fwp.U16(443)}}, false},
		{"greater or equal", []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Match: fwp.MatchGreaterOrEqual, Value: fwp.U16(443)}}, true},
		{"less or equal", []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Match: fwp.MatchLessOrEqual, Value: fwp.U16(442)}}, false},
		{"range", []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Match: fwp.MatchRange, Value: fwp.Between(fwp.U16(443), fwp.U16(500))}}, true},
		{"flags none set", []fwpm.Condition{{Field: fwpm.ConditionFlags, Match: fwp.MatchFlagsNoneSet, Value: fwp.U32(1)}}, true},
		{"flags all set", []fwpm.Condition{{Field: fwpm.ConditionFlags, Match: fwp.MatchFlagsAllSet, Value: fwp.U32(1)}}, false},
		{"flags any set", []fwpm.Condition{{Field: fwpm.ConditionFlags, Match: fwp.MatchFlagsAnySet, Value: fwp.U32(1)}}, false},
		{"AMB-34 prefix tests the end", []fwpm.Condition{{Field: fwpm.ConditionALEAppID, Match: fwp.MatchPrefix, Value: fwp.Blob("/curl")}}, true},
		{"AMB-34 not prefix", []fwpm.Condition{{Field: fwpm.ConditionALEAppID, Match: fwp.MatchNotPrefix, Value: fwp.Blob("/curl")}}, false},
		{"BFE-CND-06 empty matches only empty", []fwpm.Condition{{Field: fwpm.ConditionALEUserID, Value: fwp.Value{}}}, true},
		{"BFE-CND-06 a value does not match empty", []fwpm.Condition{{Field: fwpm.ConditionInterfaceIndex, Match: fwp.MatchNotEqual, Value: fwp.U32(1)}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := run(t, incoming(), nil, fwpm.Filter{Action: block, Conditions: c.conds})
			require.Equal(t, c.want, d.Action == block)
		})
	}
}

// An address has many names: what blocks one of them is not to be got past by asking for
// another one, or for so many that it is forgotten. What permits goes by the newest.
func TestABlockByNameIsMetByAnyName(t *testing.T) {
	is := func(name string) fwpm.Condition {
		return fwpm.Condition{Field: fwpm.ConditionPeerName, Value: fwp.Blob(name)}
	}
	ends := func(m fwp.Match, end string) fwpm.Condition {
		return fwpm.Condition{Field: fwpm.ConditionPeerName, Match: m, Value: fwp.Blob(end)}
	}
	port := fwpm.Condition{Field: fwpm.ConditionIPRemotePort, Value: fwp.U16(443)}
	other := fwpm.Condition{Field: fwpm.ConditionIPRemotePort, Value: fwp.U16(80)}
	both := &fwps.PeerNames{Names: []string{"own.example", "bad.example"}}
	lost := &fwps.PeerNames{Forgotten: true}
	for _, c := range []struct {
		name         string
		names        *fwps.PeerNames
		conds        []fwpm.Condition
		block, allow bool   // whether a filter that blocks is met, and one that permits
		by           string // the name that one is met by that blocks
	}{
		{"the newest", both, []fwpm.Condition{is("own.example")}, true, true, "own.example"},
		{"an older one", both, []fwpm.Condition{is("bad.example")}, true, false, "bad.example"},
		{"the end of an older one", both, []fwpm.Condition{ends(fwp.MatchPrefix, "bad.example")}, true, false, "bad.example"},
		{"none", both, []fwpm.Condition{is("example")}, false, false, ""},
		{"all but the newest", both, []fwpm.Condition{ends(fwp.MatchNotPrefix, "own.example")}, false, false, ""},
		{"an older one and the port", both, []fwpm.Condition{is("bad.example"), port}, true, false, "bad.example"},
		{"an older one and another port", both, []fwpm.Condition{is("bad.example"), other}, false, false, "bad.example"},
		{"one that may be forgotten", lost, []fwpm.Condition{is("bad.example")}, true, false, ""},
		{"that none is known", lost, []fwpm.Condition{{Field: fwpm.ConditionPeerName}}, true, true, ""},
		{"all but one, where all may be forgotten", lost, []fwpm.Condition{ends(fwp.MatchNotPrefix, "own.example")}, false, false, ""},
		{"one where nothing is known", nil, []fwpm.Condition{is("bad.example")}, false, false, ""},
	} {
		in := incoming()
		in.PeerNames = c.names
		if c.names != nil && len(c.names.Names) > 0 {
			in.Other = map[fwpm.ConditionID]fwp.Value{fwpm.ConditionPeerName: fwp.Blob(c.names.Names[0])}
		}
		f := fwpm.Filter{Action: block, Conditions: c.conds}
		d := run(t, in, nil, f)
		require.Equal(t, c.block, d.Action == block, c.name)
		by, _ := arbitrate.NameMet(&f, c.names)
		require.Equal(t, c.by, by, c.name)
		d = run(t, in, nil, fwpm.Filter{Action: permit, Conditions: c.conds})
		require.Equal(t, c.allow, d.Decider() != nil, c.name)
	}
}

// All mistakes at once, each with its object and its code.
func TestCompileErrors(t *testing.T) {
	cond := func(c fwpm.ConditionID, m fwp.Match, v fwp.Value) []fwpm.Condition {
		return []fwpm.Condition{{Field: c, Match: m, Value: v}}
	}
	p := &fwpm.Policy{Filters: []fwpm.Filter{
		{ID: 1, Name: "x", Layer: layer, Action: block, Sublayer: "none"},
		{ID: 12, Name: "x", Layer: layer, Action: block, Conditions: cond(fwpm.ConditionALEAppID, fwp.MatchEqualCaseInsensitive, fwp.Blob("x"))},
		{ID: 2, Name: "x", Layer: layer, Action: block, Weight: fwpm.Weight{Type: fwp.Uint8, Value: 16}},
		{ID: 3, Name: "x", Layer: layer, Action: ask, Callout: "none"},
		{ID: 4, Name: "x", Layer: layer, Action: fwp.ActionContinue},
		{ID: 5, Name: "x", Layer: 3, Action: block},
		{ID: 6, Name: "x", Layer: layer, Action: block, Conditions: cond(fwpm.ConditionIPRemotePort, 0, fwp.U32(80))},
		{ID: 7, Name: "x", Layer: layer, Action: block, Conditions: cond(fwpm.ConditionDirection, 0, fwp.U32(0))},
		{ID: 8, Name: "x", Layer: layer, Action: block, Conditions: cond(fwpm.ConditionIPRemotePort, fwp.MatchPrefix, fwp.U16(80))},
		{ID: 9, Name: "x", Layer: layer, Action: block, Conditions: cond(fwpm.ConditionIPRemotePort, fwp.MatchRange, fwp.Between(fwp.U16(9), fwp.U16(8)))},
		{ID: 10, Layer: layer, Action: block},
		{ID: 10, Name: "x", Layer: layer, Action: block},
		{ID: 11, Name: "x", Layer: layer, Action: block, Provider: "none"},
	}}
	_, err := arbitrate.Compile(p, arbitrate.Options{Lookup: func(fwpm.CalloutID) *arbitrate.Slot { return new(arbitrate.Slot) }})
	for _, want := range []fwp.Error{fwp.ErrSublayerNotFound, fwp.ErrInvalidWeight, fwp.ErrCalloutNotFound, fwp.ErrInvalidActionType,
		fwp.ErrLayerNotFound, fwp.ErrTypeMismatch, fwp.ErrConditionNotFound, fwp.ErrMatchTypeMismatch, fwp.ErrInvalidRange,
		fwp.ErrNullDisplayName, fwp.ErrAlreadyExists, fwp.ErrProviderNotFound} {
		require.ErrorIs(t, err, want)
	}
	var o *fwpm.ObjectError
	require.True(t, errors.As(err, &o))
	require.Contains(t, err.Error(), "filter 6: conditions[0]: value's type is not the field's")
}

// BFE-CND-03: what no value of the field can be compared with is refused, or the filter
// would be in the policy and match nothing, or something else.
func TestAConditionThatCannotBeEvaluatedIsRefused(t *testing.T) {
	array := func(s string) fwp.Value { return fwp.Value{Type: fwp.ByteArray16, Addr: netip.MustParseAddr(s)} }
	for name, c := range map[string]fwpm.Condition{
		"a token":                 {Field: fwpm.ConditionALEUserID, Value: fwp.Value{Type: fwp.TokenAccessInformation, Token: &fwp.Token{User: fwp.UserSID(1000)}}},
		"no token":                {Field: fwpm.ConditionALERemoteUserID, Value: fwp.Value{Type: fwp.TokenAccessInformation}},
		"IPv4 in an array":        {Field: fwpm.ConditionIPRemoteAddress, Value: array("198.51.100.1")},
		"a range that is IPv4":    {Field: fwpm.ConditionIPRemoteAddress, Match: fwp.MatchRange, Value: fwp.Between(array("198.51.100.1"), array("198.51.100.9"))},
		"a range from IPv4 on":    {Field: fwpm.ConditionIPRemoteAddress, Match: fwp.MatchRange, Value: fwp.Between(array("198.51.100.1"), array("2001:db8::"))},
		"a range without an end":  {Field: fwpm.ConditionIPRemoteAddress, Match: fwp.MatchRange, Value: fwp.Between(fwp.Value{Type: fwp.ByteArray16}, array("2001:db8::"))},
		"a range without any end": {Field: fwpm.ConditionIPRemoteAddress, Match: fwp.MatchRange, Value: fwp.Between(fwp.Value{Type: fwp.ByteArray16}, fwp.Value{Type: fwp.ByteArray16})},
	} {
		f := fwpm.Filter{ID: 1, Name: "f", Layer: fwpm.LayerALEAuthConnectV6, Action: block, Conditions: []fwpm.Condition{c}}
		_, err := arbitrate.Compile(&fwpm.Policy{Filters: []fwpm.Filter{f}}, arbitrate.Options{})
		require.ErrorIs(t, err, fwp.ErrTypeMismatch, name)
		require.ErrorContains(t, err, "conditions[0]", name)
	}
}

// SC-71, SC-72, CR-11, CH-15: versions of the request.
func TestRedirectVersions(t *testing.T) {
	to := func(s string) calloutFunc {
		return func(_ *fwps.Call, v *fwps.Verdict) {
			v.Action, v.Redirect, v.To, v.TargetPID = fwp.ActionContinue, true, netip.MustParseAddrPort(s), 7
			v.Context = append(v.Context, s...)
		}
	}
	in := incoming()
	in.Layer = fwpm.LayerALEConnectRedirectV4
	cs := map[fwpm.CalloutID]calloutFunc{"a": to("127.0.0.1:1"), "b": to("127.0.0.1:2")}
	d := run(t, in, cs, calls("high", "a"), calls("low", "b"))
	require.Equal(t, "127.0.0.1:2", d.Connect.Remote.String(), "the last version wins")
	require.Equal(t, "127.0.0.1:2", string(d.Connect.LocalRedirectContext))
	require.Equal(t, "127.0.0.1:1", d.Connect.Previous.Remote.String())
	require.Equal(t, in.Remote, d.Connect.Previous.Previous.Remote)
	require.Nil(t, d.Connect.Previous.Previous.Previous)

	d = run(t, in, cs, f("high", block), calls("low", "a"))
	require.False(t, d.Redirected(), "SC-74")
}

func TestCalloutSeesItsState(t *testing.T) {
	in := incoming()
	in.Records = redirect.Records{{Handle: 1, Serial: 9}, {Handle: 2}}
	run(t, in, map[fwpm.CalloutID]calloutFunc{"a": func(c *fwps.Call, v *fwps.Verdict) {
		v.Action = permit
		require.Equal(t, redirect.PreviouslyRedirectedBySelf, c.State)
		require.EqualValues(t, 9, c.Hop.Serial)
	}}, calls("low", "a"))
}

func TestOfADecisionThatIsUsedAgainNothingIsLeft(t *testing.T) {
	redirected := netip.MustParseAddrPort("127.0.0.1:8080")
	acts := map[string]calloutFunc{
		"redirects": func(_ *fwps.Call, v *fwps.Verdict) {
			v.Redirect, v.To, v.TargetPID, v.Record, v.Context = true, redirected, 9, []byte("record"), []byte("context")
		},
		"applies what it acquired": func(c *fwps.Call, _ *fwps.Verdict) {
			r, err := c.AcquireConnectRequest()
			require.NoError(t, err)
			r.Remote, r.Record = redirected, []byte("record")
			c.ApplyModifiedLayerData(fwps.ReauthorizeIfModifiedByOthers)
		},
		"acquires and does not apply (AMB-30)": func(c *fwps.Call, _ *fwps.Verdict) {
			_, err := c.AcquireConnectRequest()
			require.NoError(t, err)
		},
		"applies without acquiring (AMB-30)": func(c *fwps.Call, _ *fwps.Verdict) { c.ApplyModifiedLayerData(0) },
		"pends": func(c *fwps.Call, v *fwps.Verdict) {
			p, err := c.PendClassify()
			require.NoError(t, err)
			p.Complete(&fwps.Verdict{Action: fwp.ActionBlock})
		},
		"asks for the records": func(c *fwps.Call, _ *fwps.Verdict) { c.QuerySIOFormatRedirectRecords(nil) },
	}
	for name, first := range acts {
		t.Run(name, func(t *testing.T) {
			slot := new(arbitrate.Slot)
			p, err := arbitrate.Compile(&fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: []fwpm.Filter{{ID: 1, Name: "f",
				Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutUnknown, Callout: "c"}}},
				arbitrate.Options{Lookup: func(fwpm.CalloutID) *arbitrate.Slot { return slot }})
			require.NoError(t, err)
			in := incoming()
			in.Layer, in.Pending = fwpm.LayerALEConnectRedirectV4, noRecords{}
			classify := func(d *fwps.Decision, f calloutFunc) {
				slot.Set(fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error { f(c, v); return nil }), 1)
				p.Classify(t.Context(), &in, d)
			}
			used, fresh := new(fwps.Decision), new(fwps.Decision)
			plain := func(c *fwps.Call, v *fwps.Verdict) {
				require.Equal(t, fwps.ConnectRequest{Local: in.Local, Remote: in.Remote}, *c.Connect)
				v.Action = fwp.ActionPermit
			}
			classify(fresh, plain)
			classify(used, first)
			require.NotEqual(t, fresh.Outcome(), used.Outcome())
			classify(used, plain)
			require.Equal(t, fresh.Outcome(), used.Outcome())
			require.False(t, used.Singular())
			require.Empty(t, used.Misuse())
		})
	}
}

// CR-05: what a callout puts into a request is copied when it applies it. Its memory is
// its own afterwards, also where the Decision is used again.
func TestWhatACalloutLendsIsNotWrittenTo(t *testing.T) {
	slots := map[fwpm.CalloutID]*arbitrate.Slot{"first": {}, "second": {}}
	p, err := arbitrate.Compile(&fwpm.Policy{Callouts: []fwpm.Callout{{ID: "first"}, {ID: "second"}}, Filters: []fwpm.Filter{
		{ID: 1, Name: "f", Layer: fwpm.LayerALEConnectRedirectV4, Action: ask, Callout: "first"},
		{ID: 2, Name: "f", Layer: fwpm.LayerALEConnectRedirectV4, Action: ask, Callout: "second"}}},
		arbitrate.Options{Lookup: func(id fwpm.CalloutID) *arbitrate.Slot { return slots[id] }})
	require.NoError(t, err)
	record, context := []byte("record of second"), []byte("context of second")
	apply := func(id fwpm.CalloutID, change func(r *fwps.ConnectRequest)) {
		slots[id].Set(calloutOf(func(c *fwps.Call, _ *fwps.Verdict) {
			if r, err := c.AcquireConnectRequest(); err == nil {
				change(r)
				c.ApplyModifiedLayerData(0)
			}
		}), 1)
	}
	apply("first", func(r *fwps.ConnectRequest) {
		r.Record, r.LocalRedirectContext = append(r.Record[:0], "first"...), append(r.LocalRedirectContext[:0], "first"...)
	})
	apply("second", func(r *fwps.ConnectRequest) { r.Record, r.LocalRedirectContext = record, context })
	in, d := incoming(), new(fwps.Decision)
	in.Layer = fwpm.LayerALEConnectRedirectV4
	for range 3 {
		p.Classify(t.Context(), &in, d)
		require.Equal(t, 3, d.Versions())
		require.Equal(t, "context of second", string(d.Connect.LocalRedirectContext))
		require.Equal(t, "record of second", string(d.Connect.Record))
		require.Equal(t, "first", string(d.Connect.Previous.LocalRedirectContext))
		require.Equal(t, "record of second, context of second", string(record)+", "+string(context))
	}
	slots["second"].Set(calloutOf(func(*fwps.Call, *fwps.Verdict) {}), 1)
	d = new(fwps.Decision)
	require.Zero(t, testing.AllocsPerRun(100, func() { p.Classify(t.Context(), &in, d) }), "who appends has memory of ours")
}

// CR-05: what a callout answers with is read and no more, whoever is asked next with the
// same Decision; and who appends to what it was given allocates nothing.
func TestWhatACalloutAnswersWithIsNotWrittenTo(t *testing.T) {
	slots := map[fwpm.CalloutID]*arbitrate.Slot{"lends": {}, "appends": {}}
	p, err := arbitrate.Compile(&fwpm.Policy{Callouts: []fwpm.Callout{{ID: "lends"}, {ID: "appends"}}, Filters: []fwpm.Filter{
		{ID: 1, Name: "f", Layer: fwpm.LayerALEConnectRedirectV4, Action: ask, Callout: "lends", Weight: fwpm.Weight{Type: fwp.Uint64, Value: 2}},
		{ID: 2, Name: "f", Layer: fwpm.LayerALEConnectRedirectV4, Action: ask, Callout: "appends"}}},
		arbitrate.Options{Lookup: func(id fwpm.CalloutID) *arbitrate.Slot { return slots[id] }})
	require.NoError(t, err)
	record, context := []byte("record that is lent"), []byte("context that is lent")
	appends := func(_ *fwps.Call, v *fwps.Verdict) {
		v.Action, v.Redirect, v.To = permit, true, netip.MustParseAddrPort("127.0.0.1:2")
		v.Record, v.Context = append(v.Record, "other"...), append(v.Context, "another"...)
	}
	slots["appends"].Set(calloutOf(appends), 1)
	in, d := incoming(), new(fwps.Decision)
	in.Layer = fwpm.LayerALEConnectRedirectV4
	for name, lends := range map[string]calloutFunc{
		"redirects": func(_ *fwps.Call, v *fwps.Verdict) {
			v.Redirect, v.To, v.Record, v.Context = true, in.Remote, record, context
		},
		"says nothing":      func(_ *fwps.Call, v *fwps.Verdict) { v.Record, v.Context = record, context },
		"has nothing in it": func(_ *fwps.Call, v *fwps.Verdict) { v.Record, v.Context = record[:0], context[:0] },
		"fails":             func(_ *fwps.Call, v *fwps.Verdict) { v.Record, v.Context = record, context; panic("boom") },
	} {
		slots["lends"].Set(calloutOf(lends), 1)
		for range 3 {
			p.Classify(t.Context(), &in, d)
			require.Equal(t, "record that is lent, context that is lent", string(record)+", "+string(context), name)
			if name != "fails" {
				require.Equal(t, "other, another", string(d.Connect.Record)+", "+string(d.Connect.LocalRedirectContext), name)
			}
		}
	}
	for name, c := range map[string]calloutFunc{"redirects": appends, "permits": func(c *fwps.Call, v *fwps.Verdict) { appends(c, v); v.Redirect = false }} {
		slots["lends"].Set(calloutOf(c), 1)
		d = new(fwps.Decision)
		require.Zero(t, testing.AllocsPerRun(100, func() { p.Classify(t.Context(), &in, d) }), "%s: who appends has memory of ours", name)
	}
}

func calloutOf(f calloutFunc) fwps.CalloutFunc {
	return func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error { f(c, v); return nil }
}

func TestTheZeroProgramPermits(t *testing.T) {
	in, d := incoming(), new(fwps.Decision)
	new(arbitrate.Program).Classify(t.Context(), &in, d)
	require.Equal(t, fwp.ActionPermit, d.Action)
	require.Empty(t, d.Steps)
}

type noRecords struct{}

func (noRecords) Format(redirect.Handle) ([]byte, error) { return nil, nil }

// Who forgets the layer is not let through: Classify has no error to overlook.
func TestWhatIsNoLayerIsBlocked(t *testing.T) {
	for _, l := range []fwpm.LayerID{0, fwpm.LayerALEAuthConnectV4 + 1, fwpm.NumLayers, 999} {
		var d fwps.Decision
		new(arbitrate.Program).Classify(t.Context(), &fwps.Incoming{Layer: l}, &d)
		require.Equal(t, fwp.ActionBlock, d.Action, l)
		require.Equal(t, fmt.Sprintf("there is no layer %d", l), d.Decider().Why)
	}
}
