package host_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

func TestEnumeration(t *testing.T) {
	t.Run("ENUM-01 an enumeration is what was there when it began, in batches", func(t *testing.T) {
		e := host.New(host.Options{})
		s := open(t, e, host.SessionOptions{})
		for i := range 5 {
			add(t, s, filter(fmt.Sprint(i), block))
		}
		h, err := s.FilterCreateEnumHandle(nil)
		require.NoError(t, err)
		require.NoError(t, e.Update(func(p *fwpm.Policy) error { p.Filters = nil; return nil }))
		var got []string
		for _, want := range []int{2, 2, 1, 0, 0} {
			batch, err := h.Next(2)
			require.NoError(t, err)
			require.Len(t, batch, want)
			for _, f := range batch {
				got = append(got, f.Name)
			}
		}
		require.Equal(t, []string{"0", "1", "2", "3", "4"}, got)
		_, err = h.Next(0)
		require.ErrorIs(t, err, fwp.ErrInvalidParameter)
		require.NoError(t, h.Destroy())
		require.ErrorIs(t, h.Destroy(), fwp.ErrInvalidEnumerator)
		_, err = h.Next(1)
		require.ErrorIs(t, err, fwp.ErrInvalidEnumerator)
	})
	t.Run("ENUM-01 it ends with its session", func(t *testing.T) {
		s := open(t, host.New(host.Options{}), host.SessionOptions{})
		h, err := s.LayerCreateEnumHandle()
		require.NoError(t, err)
		s.Close()
		_, err = h.Next(1)
		require.ErrorIs(t, err, fwp.ErrInvalidEnumerator)
		require.ErrorIs(t, h.Destroy(), fwp.ErrInvalidEnumerator)
	})
	t.Run("BFE-OBJ-01 every kind of object", func(t *testing.T) {
		e := host.New(host.Options{})
		s := open(t, e, host.SessionOptions{Key: "me", Name: "my session"})
		open(t, e, host.SessionOptions{Key: "another", Dynamic: true})
		require.NoError(t, e.Update(func(p *fwpm.Policy) error {
			p.Providers = []fwpm.Provider{{ID: "p"}, {ID: "q"}}
			p.ProviderContexts = []fwpm.ProviderContext{{ID: "pc", Provider: "p", Data: []byte("data")}, {ID: "qc", Provider: "q"}}
			p.Sublayers = []fwpm.Sublayer{{ID: "ps", Provider: "p", Weight: 7}, {ID: "qs", Provider: "q"}}
			p.Callouts = []fwpm.Callout{{ID: "everywhere", Provider: "p"}, {ID: "v4", ApplicableLayer: layer}, {ID: "v6", ApplicableLayer: fwpm.LayerALEAuthConnectV6}}
			return nil
		}))
		register(t, e, "v4", answering(permit))

		require.Equal(t, []fwpm.Provider{{ID: "p"}, {ID: "q"}}, drain(t, must(s.ProviderCreateEnumHandle())))
		contexts := drain(t, must(s.ProviderContextCreateEnumHandle(fwpm.EnumTemplate{Provider: "p"})))
		require.Equal(t, []fwpm.ProviderContext{{ID: "pc", Provider: "p", Data: []byte("data")}}, contexts)
		contexts[0].Data[0] = 'x'
		require.Equal(t, "data", string(e.Policy().ProviderContexts[0].Data))
		require.Len(t, drain(t, must(s.SublayerCreateEnumHandle(fwpm.EnumTemplate{}))), 4, "BFE-SUB-01 the built-in ones too")
		require.Equal(t, []fwpm.Sublayer{{ID: "ps", Provider: "p", Weight: 7}}, drain(t, must(s.SublayerCreateEnumHandle(fwpm.EnumTemplate{Provider: "p"}))))
		require.Equal(t, []fwpm.Callout{{ID: "everywhere", Provider: "p"}, {ID: "v4", ApplicableLayer: layer, Registered: true}},
			drain(t, must(s.CalloutCreateEnumHandle(fwpm.EnumTemplate{Layer: layer}))))
		require.Equal(t, fwpm.Layers(), drain(t, must(s.LayerCreateEnumHandle())))
		sessions := drain(t, must(s.SessionCreateEnumHandle()))
		require.Len(t, sessions, 2)
		require.True(t, sessions[0].Dynamic)
		require.Equal(t, "my session", sessions[1].Name)
	})
	t.Run("BFE-WGT-01 a filter says what its weight became", func(t *testing.T) {
		e := host.New(host.Options{})
		s := open(t, e, host.SessionOptions{})
		for i, w := range []fwpm.Weight{{Type: fwp.Uint64, Value: 5}, {Type: fwp.Uint8, Value: 15}, {}} {
			f := filter(fmt.Sprint(i), permit)
			f.Weight, f.EffectiveWeight = w, 99 // output only: not looked at
			add(t, s, f)
		}
		got := filters(t, s, nil)
		require.EqualValues(t, 5, got[0].EffectiveWeight)
		require.GreaterOrEqual(t, got[1].EffectiveWeight, uint64(15)<<60)
		require.Less(t, got[2].EffectiveWeight, uint64(1)<<60, "BFE-WGT-02")
		require.Zero(t, e.Policy().Filters[0].EffectiveWeight, "a policy is what was asked for")
	})
}

// drain reads an enumeration to its end.
func drain[T any](t *testing.T, h *host.Enum[T]) []T {
	t.Helper()
	out, err := h.Next(1 << 20)
	require.NoError(t, err)
	return out
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func template(change func(*fwpm.FilterEnumTemplate)) *fwpm.FilterEnumTemplate {
	m := &fwpm.FilterEnumTemplate{Layer: layer, ActionMask: fwpm.AnyAction}
	change(m)
	return m
}

func cond(c fwpm.ConditionID, m fwp.Match, v fwp.Value) fwpm.Condition {
	return fwpm.Condition{Field: c, Match: m, Value: v}
}

func mask(s string) fwp.Value { return fwp.Mask(netip.MustParsePrefix(s)) }

func TestFilterTemplates(t *testing.T) {
	e := host.New(host.Options{})
	s := open(t, e, host.SessionOptions{})
	declare(t, s, "c")
	const remote, port, app, user = fwpm.ConditionIPRemoteAddress, fwpm.ConditionIPRemotePort, fwpm.ConditionALEAppID, fwpm.ConditionALEUserID
	_, err := s.ProviderAdd(fwpm.Provider{ID: "p", Name: "p"})
	require.NoError(t, err)
	_, err = s.SublayerAdd(fwpm.Sublayer{ID: "heavy", Name: "heavy", Weight: 0xffff})
	require.NoError(t, err)
	for _, f := range []fwpm.Filter{
		{Name: "all", Action: permit},
		{Name: "net", Action: block, Conditions: []fwpm.Condition{cond(remote, fwp.MatchEqual, mask("10.0.0.0/8"))}},
		{Name: "host", Action: block, Conditions: []fwpm.Condition{cond(remote, fwp.MatchEqual, fwp.Addr(netip.MustParseAddr("10.1.2.3")))}},
		{Name: "web", Action: ask, Callout: "c", Provider: "p", Sublayer: "heavy", Conditions: []fwpm.Condition{cond(port, fwp.MatchEqual, fwp.U16(80)), cond(port, fwp.MatchEqual, fwp.U16(443))}},
		{Name: "net web", Action: fwp.ActionCalloutInspection, Callout: "c", Conditions: []fwpm.Condition{cond(remote, fwp.MatchEqual, mask("10.0.0.0/8")), cond(port, fwp.MatchEqual, fwp.U16(443))}},
		{Name: "curl", Action: block, Conditions: []fwpm.Condition{cond(app, fwp.MatchPrefix, fwp.Blob("/curl"))}},
		{Name: "user", Action: block, Conditions: []fwpm.Condition{cond(user, fwp.MatchEqual, fwp.Allow(fwp.UserSID(1000)))}},
		{Name: "boot", Action: block, Boottime: true},
		{Name: "v6", Action: block, Layer: fwpm.LayerALEAuthConnectV6},
	} {
		if f.Layer == 0 {
			f.Layer = layer
		}
		add(t, s, f)
	}
	whole, part := fwp.FilterEnumFullyContained, fwp.FilterEnumOverlapping
	in := func(e fwp.FilterEnumType, cs ...fwpm.Condition) func(*fwpm.FilterEnumTemplate) {
		return func(m *fwpm.FilterEnumTemplate) { m.EnumType, m.Conditions = e, cs }
	}
	flags := func(f fwp.FilterEnumFlags) func(*fwpm.FilterEnumTemplate) {
		return func(m *fwpm.FilterEnumTemplate) { m.Flags = f }
	}
	action := func(a fwp.Action) func(*fwpm.FilterEnumTemplate) {
		return func(m *fwpm.FilterEnumTemplate) { m.ActionMask = a }
	}
	for _, c := range []struct {
		rule   string
		change func(*fwpm.FilterEnumTemplate)
		want   []string
	}{
		{"a layer", func(*fwpm.FilterEnumTemplate) {}, []string{"all", "net", "host", "web", "net web", "curl", "user"}},
		{"another layer", func(m *fwpm.FilterEnumTemplate) { m.Layer = fwpm.LayerALEAuthConnectV6 }, []string{"v6"}},
		{"a provider", func(m *fwpm.FilterEnumTemplate) { m.Provider = "p" }, []string{"web"}},
		{"a callout", func(m *fwpm.FilterEnumTemplate) { m.Callout = "c" }, []string{"web", "net web"}},
		{"an action's bits", action(fwp.ActionFlagCallout), []string{"web", "net web"}},
		{"blocks", action(block &^ fwp.ActionFlagTerminating), []string{"net", "host", "web", "curl", "user"}},
		{"boot-time filters too", flags(fwp.FilterEnumIncludeBoottime), []string{"all", "net", "host", "web", "net web", "curl", "user", "boot"}},
		{"boot-time filters only", flags(fwp.FilterEnumBoottimeOnly), []string{"boot"}},
		{"sorted as they are asked", flags(fwp.FilterEnumSorted), []string{"web", "net web", "host", "user", "net", "curl", "all"}},
		{"the first that decides", flags(fwp.FilterEnumBestTerminatingMatch), []string{"host"}},

		{"one address", in(whole, cond(remote, fwp.MatchEqual, fwp.Addr(netip.MustParseAddr("10.1.2.3")))), []string{"all", "net", "host"}},
		{"another one", in(whole, cond(remote, fwp.MatchEqual, fwp.Addr(netip.MustParseAddr("10.1.2.4")))), []string{"all", "net"}},
		{"a net in a net", in(whole, cond(remote, fwp.MatchEqual, mask("10.1.0.0/16"))), []string{"all", "net"}},
		{"what takes some of it", in(part, cond(remote, fwp.MatchEqual, mask("10.1.0.0/16"))), []string{"all", "net", "host", "web", "net web", "curl", "user"}},
		{"a net outside", in(part, cond(remote, fwp.MatchEqual, mask("192.0.2.0/24"))), []string{"all", "web", "curl", "user"}},
		{"alternatives together", in(whole, cond(port, fwp.MatchEqual, fwp.U16(80)), cond(port, fwp.MatchEqual, fwp.U16(443))), []string{"all", "web"}},
		{"a range that is not all there", in(whole, cond(port, fwp.MatchRange, fwp.Between(fwp.U16(80), fwp.U16(81)))), []string{"all"}},
		{"two fields", in(whole, cond(remote, fwp.MatchEqual, mask("10.0.0.0/8")), cond(port, fwp.MatchEqual, fwp.U16(443))), []string{"all", "net", "web", "net web"}},
		{"a program", in(whole, cond(app, fwp.MatchEqual, fwp.Blob("/usr/bin/curl"))), []string{"all", "curl"}},
		{"BFE-CND-03 a user as a SID", in(whole, cond(user, fwp.MatchEqual, fwp.Value{Type: fwp.SIDType, Text: string(fwp.UserSID(1000))})), []string{"all", "user"}},
		{"BFE-CND-06 nobody", in(whole, cond(user, fwp.MatchEqual, fwp.Value{})), []string{"all"}},
		{"a flag nobody asks for", in(whole, cond(fwpm.ConditionFlags, fwp.MatchFlagsAllSet, fwp.U32(1))), []string{"all"}},
	} {
		t.Run("ENUM-02 "+c.rule, func(t *testing.T) {
			got := []string{}
			for _, f := range filters(t, s, template(c.change)) {
				got = append(got, f.Name)
			}
			require.Equal(t, c.want, got)
		})
	}
	for _, c := range []struct {
		rule   string
		change func(*fwpm.FilterEnumTemplate)
		want   error
	}{
		{"no layer", func(m *fwpm.FilterEnumTemplate) { m.Layer = 0 }, fwp.ErrLayerNotFound},
		{"no action", action(0), fwp.ErrNeverMatch},
		{"unknown flags", flags(0x40), fwp.ErrInvalidFlags},
		{"boot-time only and disabled", flags(fwp.FilterEnumBoottimeOnly | fwp.FilterEnumIncludeDisabled), fwp.ErrInvalidFlags},
		{"an unknown way to compare", in(2), fwp.ErrInvalidParameter},
		{"a field of another layer", in(whole, cond(fwpm.ConditionDirection, 0, fwp.U32(0))), fwp.ErrConditionNotFound},
		{"a value of another type", in(whole, cond(port, 0, fwp.U32(80))), fwp.ErrTypeMismatch},
		{"no SID", in(whole, cond(user, 0, fwp.Value{Type: fwp.SIDType, Text: "root"})), fwp.ErrInvalidParameter},
	} {
		t.Run("ENUM-02 "+c.rule, func(t *testing.T) {
			_, err := s.FilterCreateEnumHandle(template(c.change))
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, "filter template: ")
		})
	}
}

// BFE-SUB-03: the inspection sublayer is below a sublayer of weight 0 too.
func TestInspectionSublayerIsLast(t *testing.T) {
	s := open(t, host.New(host.Options{}), host.SessionOptions{})
	_, err := s.SublayerAdd(fwpm.Sublayer{ID: "z", Name: "of weight 0"})
	require.NoError(t, err)
	for _, sub := range []fwpm.SublayerID{fwpm.SublayerInspection, "z"} {
		f := filter(string(sub), block)
		f.Sublayer = sub
		add(t, s, f)
	}
	got := filters(t, s, template(func(m *fwpm.FilterEnumTemplate) { m.Flags = fwp.FilterEnumSorted }))
	require.EqualValues(t, "z", got[0].Name)
}

// AMB-34: a template reads a prefix as the engine does.
func TestTemplatePrefix(t *testing.T) {
	for _, starts := range []bool{false, true} {
		s := open(t, host.New(host.Options{PrefixMatchesStart: starts}), host.SessionOptions{})
		f := filter("f", block)
		f.Conditions = []fwpm.Condition{cond(fwpm.ConditionALEAppID, fwp.MatchPrefix, fwp.Blob("/usr"))}
		add(t, s, f)
		got := filters(t, s, template(func(m *fwpm.FilterEnumTemplate) {
			m.Conditions = []fwpm.Condition{cond(fwpm.ConditionALEAppID, fwp.MatchEqual, fwp.Blob("/usr/bin/curl"))}
		}))
		require.Equal(t, starts, len(got) == 1)
	}
}

// Every pair of conditions on the protocol, and on four flags: what a template
// says must be what the arbiter does with each of the values.
func TestTemplatesAgreeWithTheArbiter(t *testing.T) {
	protocol := func() (out []fwpm.Condition) {
		v := func(n int) fwp.Value { return fwp.U8(uint8(n)) }
		for _, n := range []int{0, 1, 6, 254, 255} {
			for m := fwp.MatchEqual; m <= fwp.MatchNotPrefix; m++ {
				out = append(out, cond(fwpm.ConditionIPProtocol, m, v(n)))
			}
		}
		for _, r := range [][2]int{{0, 255}, {1, 6}, {5, 7}, {7, 254}} {
			out = append(out, cond(fwpm.ConditionIPProtocol, fwp.MatchRange, fwp.Between(v(r[0]), v(r[1]))))
		}
		return out
	}()
	var flags []fwpm.Condition
	for _, n := range []uint32{0, 1, 2, 3, 4, 7} {
		for _, m := range []fwp.Match{fwp.MatchEqual, fwp.MatchFlagsAllSet, fwp.MatchFlagsAnySet, fwp.MatchFlagsNoneSet} {
			flags = append(flags, cond(fwpm.ConditionFlags, m, fwp.U32(n)))
		}
	}
	for _, c := range []struct {
		name       string
		conditions []fwpm.Condition
		values     int
		set        func(in *fwps.Incoming, v int)
	}{
		{"numbers", protocol, 256, func(in *fwps.Incoming, v int) { in.Protocol = uint8(v) }},
		{"flags", flags, 8, func(in *fwps.Incoming, v int) { in.Flags = fwp.ConditionFlags(v) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := host.New(host.Options{})
			s := open(t, e, host.SessionOptions{})
			accepted := map[int][]bool{} // by condition: which values
			for i, x := range c.conditions {
				f := filter(fmt.Sprint(i), block)
				f.Conditions = []fwpm.Condition{x}
				id, err := s.FilterAdd(f)
				if err != nil {
					continue // a combination that is none
				}
				accepted[i] = make([]bool, c.values)
				for v := range c.values {
					in, d := incoming(layer), new(fwps.Decision)
					c.set(&in, v)
					e.Classify(context.Background(), &in, d)
					accepted[i][v] = d.Action == block
				}
				require.NoError(t, s.FilterDelete(id))
			}
			require.NoError(t, s.Begin(0))
			for i := range c.conditions {
				if accepted[i] != nil {
					f := filter(fmt.Sprint(i), block)
					f.Conditions = []fwpm.Condition{c.conditions[i]}
					add(t, s, f)
				}
			}
			require.NoError(t, s.Commit())
			for i, described := range accepted {
				for _, way := range []fwp.FilterEnumType{fwp.FilterEnumFullyContained, fwp.FilterEnumOverlapping} {
					found := map[string]bool{}
					for _, f := range filters(t, s, template(func(m *fwpm.FilterEnumTemplate) { m.EnumType, m.Conditions = way, c.conditions[i:i+1] })) {
						found[f.Name] = true
					}
					for j, takes := range accepted {
						whole, some := true, false
						for v := range described {
							whole, some = whole && (!described[v] || takes[v]), some || described[v] && takes[v]
						}
						want := whole
						if way == fwp.FilterEnumOverlapping {
							want = some
						}
						got := found[fmt.Sprint(j)]
						switch {
						case !onFlags(c.conditions[i]) && !onFlags(c.conditions[j]):
							require.Equal(t, want, got, "way %d: %+v against filter %+v", way, c.conditions[i], c.conditions[j])
						case way == fwp.FilterEnumFullyContained: // never too much
							require.True(t, want || !got, "%+v against filter %+v", c.conditions[i], c.conditions[j])
						default: // never too little
							require.True(t, got || !want, "%+v against filter %+v", c.conditions[i], c.conditions[j])
						}
					}
				}
			}
		})
	}
}

func onFlags(c fwpm.Condition) bool {
	return c.Field == fwpm.ConditionFlags || c.Match >= fwp.MatchFlagsAllSet && c.Match <= fwp.MatchFlagsNoneSet
}
