package cgroupbpf

import (
	"context"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// lookup is what the kernel does with a table.
func (t *table) lookup(f family, protocol uint8, to netip.AddrPort, uid uint32) verdict {
	if protocol != fwps.ProtocolTCP && protocol != fwps.ProtocolUDP {
		protocol = 0
	}
	a, best, found := netip.AddrFrom16(to.Addr().As16()), -1, ask
	for _, c := range t.cells {
		if c.family == f && c.protocol == protocol && c.portClass == t.ports[to.Port()] && c.userClass == t.users[uid] &&
			c.prefix.Bits() > best && c.prefix.Contains(a) {
			best, found = c.prefix.Bits(), c.verdict
		}
	}
	return found
}

func filter(id int, l fwpm.LayerID, a fwp.Action, cs ...fwpm.Condition) fwpm.Filter {
	return fwpm.Filter{ID: fwpm.FilterID(id), Name: "f", Layer: l, Action: a, Conditions: cs}
}

func condition(c fwpm.ConditionID, v fwp.Value) fwpm.Condition {
	return fwpm.Condition{Field: c, Value: v}
}

var (
	authConnect = fwpm.LayerALEAuthConnectV4
	net198      = fwp.Mask(netip.MustParsePrefix("198.51.100.0/24"))
)

func TestWhatTheKernelDecides(t *testing.T) {
	p := &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: []fwpm.Filter{
		filter(1, authConnect, fwp.ActionBlock, condition(fwpm.ConditionIPRemotePort, fwp.U16(25)), condition(fwpm.ConditionIPProtocol, fwp.U8(6))),
		{ID: 2, Name: "proxied", Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutUnknown, Callout: "c",
			Conditions: []fwpm.Condition{condition(fwpm.ConditionIPRemoteAddress, net198), condition(fwpm.ConditionIPRemotePort, fwp.U16(80))}},
		filter(3, authConnect, fwp.ActionBlock, condition(fwpm.ConditionALEAppID, fwp.Blob("/bin/x")), condition(fwpm.ConditionIPRemotePort, fwp.U16(99))),
		filter(4, authConnect, fwp.ActionBlock, condition(fwpm.ConditionALEUserID, fwp.Allow(fwp.UserSID(7))), condition(fwpm.ConditionIPRemotePort, fwp.U16(53))),
	}}
	table, err := newTable(p)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		protocol uint8
		to       string
		uid      uint32
		want     verdict
	}{
		"no filter matches":             {6, "203.0.113.1:443", 0, permit},
		"a static block":                {6, "203.0.113.1:25", 0, block},
		"of another protocol":           {17, "203.0.113.1:25", 0, permit},
		"a callout":                     {6, "198.51.100.7:80", 0, callout},
		"beside the callout's port":     {6, "198.51.100.7:81", 0, permit},
		"beside the callout's prefix":   {6, "198.51.101.7:80", 0, permit},
		"the program decides":           {6, "203.0.113.1:99", 0, ask},
		"the user it names":             {17, "203.0.113.1:53", 7, block},
		"another user":                  {17, "203.0.113.1:53", 8, permit},
		"a protocol of no filter":       {132, "203.0.113.1:443", 0, permit},
		"a callout's for all protocols": {132, "198.51.100.7:80", 0, callout},
	} {
		require.Equal(t, c.want, table.lookup(v4, c.protocol, netip.MustParseAddrPort(c.to), c.uid), name)
	}
}

// A socket whose destinations the kernel's part does not see is permitted only if all
// of them are, to the user.
func TestUnseenSockets(t *testing.T) {
	mail := filter(1, authConnect, fwp.ActionBlock, condition(fwpm.ConditionIPRemotePort, fwp.U16(25)), condition(fwpm.ConditionIPProtocol, fwp.U8(6)))
	net := filter(2, authConnect, fwp.ActionBlock, condition(fwpm.ConditionIPRemoteAddress, net198))
	asks := fwpm.Filter{ID: 3, Name: "f", Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutUnknown, Callout: "c"}
	user := filter(4, authConnect, fwp.ActionBlock, condition(fwpm.ConditionALEUserID, fwp.Allow(fwp.UserSID(7))))
	for name, c := range map[string]struct {
		filters               []fwpm.Filter
		uid                   uint32
		others, raw, v6others verdict
	}{
		"nothing is blocked":          {nil, 0, permit, permit, permit},
		"of TCP a raw one can be":     {[]fwpm.Filter{mail}, 0, permit, block, permit},
		"a net for all protocols":     {[]fwpm.Filter{net}, 0, block, block, permit},
		"a callout":                   {[]fwpm.Filter{asks}, 0, callout, callout, permit},
		"a callout comes before":      {[]fwpm.Filter{asks, mail}, 0, callout, callout, permit},
		"the user that is named":      {[]fwpm.Filter{user}, 7, block, block, permit},
		"another user":                {[]fwpm.Filter{user}, 8, permit, permit, permit},
		"a user of mail is as others": {[]fwpm.Filter{user, mail}, 8, permit, block, permit},
	} {
		table, err := newTable(&fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: c.filters})
		require.NoError(t, err)
		at := func(f family, protocol uint8) verdict {
			for _, cell := range table.cells {
				if cell.family == f && cell.protocol == protocol && cell.userClass == table.users[c.uid] {
					require.Zero(t, cell.prefix.Bits())
					return cell.verdict
				}
			}
			return ask
		}
		require.Equal(t, []verdict{c.others, c.raw, c.v6others}, []verdict{at(v4, others), at(v4, raw), at(v6, others)}, name)
	}
}

// Whatever the kernel decides, the engine decides too.
func TestKernelAgreesWithTheEngine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Sublayers: []fwpm.Sublayer{{ID: "a", Weight: 9}, {ID: "b", Weight: 5}}}
		addr := rapid.Custom(func(t *rapid.T) netip.Addr {
			return netip.AddrFrom4([4]byte{10, byte(rapid.IntRange(0, 2).Draw(t, "x")), 0, byte(rapid.IntRange(0, 3).Draw(t, "y"))})
		})
		for id := range rapid.IntRange(0, 6).Draw(t, "filters") {
			f := filter(id+1, rapid.SampledFrom([]fwpm.LayerID{authConnect, fwpm.LayerALEConnectRedirectV4, fwpm.LayerALEResourceAssignmentV4}).Draw(t, "layer"),
				rapid.SampledFrom([]fwp.Action{fwp.ActionPermit, fwp.ActionBlock, fwp.ActionCalloutUnknown}).Draw(t, "action"))
			f.Sublayer, f.ClearActionRight = rapid.SampledFrom([]fwpm.SublayerID{"a", "b"}).Draw(t, "sublayer"), rapid.Bool().Draw(t, "hard")
			if f.Action.CallsOut() {
				f.Callout = "c"
			}
			for range rapid.IntRange(0, 3).Draw(t, "conditions") {
				c := rapid.SampledFrom([]fwpm.Condition{
					condition(fwpm.ConditionIPRemoteAddress, fwp.Mask(netip.PrefixFrom(addr.Draw(t, "prefix"), rapid.SampledFrom([]int{0, 8, 16, 31, 32}).Draw(t, "bits")))),
					condition(fwpm.ConditionIPRemotePort, fwp.U16(uint16(rapid.IntRange(1, 4).Draw(t, "port")))),
					{Field: fwpm.ConditionIPRemotePort, Match: fwp.MatchGreater, Value: fwp.U16(2)},
					condition(fwpm.ConditionIPProtocol, fwp.U8(rapid.SampledFrom([]uint8{6, 17, 132}).Draw(t, "protocol"))),
					condition(fwpm.ConditionALEUserID, fwp.Allow(fwp.UserSID(1))),
					condition(fwpm.ConditionALEAppID, fwp.Blob("/bin/app")),
				}).Draw(t, "condition")
				if f.Layer.Offers(c.Field) {
					f.Conditions = append(f.Conditions, c)
				}
			}
			p.Filters = append(p.Filters, f)
		}
		table, err := newTable(p)
		if err != nil {
			t.Skip("the policy is refused")
		}
		slot := new(arbitrate.Slot)
		asked := false
		slot.Set(fwps.CalloutFunc(func(context.Context, *fwps.Call, *fwps.Verdict) error { asked = true; return nil }), 1)
		prog, err := arbitrate.Compile(p, arbitrate.Options{Lookup: func(fwpm.CalloutID) *arbitrate.Slot { return slot }})
		require.NoError(t, err)
		for range 10 {
			to := netip.AddrPortFrom(addr.Draw(t, "to"), uint16(rapid.IntRange(1, 5).Draw(t, "to port")))
			protocol, uid := rapid.SampledFrom([]uint8{6, 17, 132}).Draw(t, "of"), uint32(rapid.IntRange(0, 2).Draw(t, "uid"))
			got := table.lookup(v4, protocol, to, uid)
			if got == ask || got == callout {
				continue
			}
			for _, app := range []string{"/bin/app", "/bin/other"} {
				want, d := permit, new(fwps.Decision)
				for _, l := range steps {
					in := fwps.Incoming{Layer: l, Protocol: protocol, Remote: to, Local: netip.MustParseAddrPort("0.0.0.0:0"), UserID: uid, UserKnown: true, AppID: app}
					prog.Classify(context.Background(), &in, d)
					if d.Action == fwp.ActionBlock && !l.IsConnectRedirect() && !l.IsBindRedirect() {
						want = block
						break
					}
				}
				require.Equal(t, want, got, "%s to %v by %d", app, to, uid)
				require.False(t, asked, "the kernel decided what a callout was to be asked about")
			}
		}
	})
}
