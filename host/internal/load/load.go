// Package load makes policies and connections that look like those of a large
// site: prefixes of all lengths, ports and port ranges, programs, users, few
// filters that say little. Half of the connections aim at a filter. The same seed
// makes the same.
package load

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// A Load makes filters and connections of one layer.
type Load struct {
	Rand  *rand.Rand
	layer fwpm.LayerID
	ports []uint16
	apps  int
}

// New returns the load of a policy with n filters.
func New(seed uint64, l fwpm.LayerID, n int) *Load {
	g := &Load{Rand: rand.New(rand.NewPCG(seed, uint64(n))), layer: l, apps: max(10, n/10)}
	for range 200 {
		g.ports = append(g.ports, uint16(g.Rand.IntN(20000)+1))
	}
	return g
}

func (g *Load) address() netip.Addr {
	if g.layer.IsV6() {
		b := [16]byte{0x20, 1, 15: byte(g.Rand.IntN(256))}
		for i := 2; i < 8; i++ {
			b[i] = byte(g.Rand.IntN(8))
		}
		return netip.AddrFrom16(b)
	}
	return netip.AddrFrom4([4]byte{byte(16 + g.Rand.IntN(16)), byte(g.Rand.IntN(256)), byte(g.Rand.IntN(256)), byte(g.Rand.IntN(256))})
}

func (g *Load) app() string { return fmt.Sprintf("/usr/bin/program-%d", g.Rand.IntN(g.apps)) }

// bits is a prefix length: few short ones.
func (g *Load) bits() int {
	x := g.Rand.IntN(100)
	v4, v6 := 32, 128
	switch {
	case x < 2:
		v4, v6 = 8, 16
	case x < 17:
		v4, v6 = 16, 32
	case x < 67:
		v4, v6 = 24, 48
	}
	if g.layer.IsV6() {
		return v6
	}
	return v4
}

// Filter is a filter of one of the sublayers s0, s1 and s2.
func (g *Load) Filter(id int) fwpm.Filter {
	f := fwpm.Filter{ID: fwpm.FilterID(id), Name: "f", Layer: g.layer, Action: fwp.ActionPermit, Sublayer: fwpm.SublayerID(fmt.Sprint("s", id%3))}
	if g.Rand.IntN(2) == 0 {
		f.Action = fwp.ActionBlock
	}
	add := func(c fwpm.ConditionID, m fwp.Match, v fwp.Value) {
		f.Conditions = append(f.Conditions, fwpm.Condition{Field: c, Match: m, Value: v})
	}
	if g.Rand.IntN(10) < 7 {
		add(fwpm.ConditionIPRemoteAddress, fwp.MatchEqual, fwp.Mask(netip.PrefixFrom(g.address(), g.bits())))
		if g.Rand.IntN(20) == 0 {
			add(fwpm.ConditionIPRemoteAddress, fwp.MatchEqual, fwp.Addr(g.address()))
		}
	}
	switch x := g.Rand.IntN(100); {
	case x < 60:
		add(fwpm.ConditionIPRemotePort, fwp.MatchEqual, fwp.U16(g.ports[g.Rand.IntN(len(g.ports))]))
	case x < 75:
		low := uint16(g.Rand.IntN(60000))
		add(fwpm.ConditionIPRemotePort, fwp.MatchRange, fwp.Between(fwp.U16(low), fwp.U16(low+uint16(g.Rand.IntN(5000)))))
	}
	switch x := g.Rand.IntN(10); {
	case x < 6:
		add(fwpm.ConditionIPProtocol, fwp.MatchEqual, fwp.U8(6))
	case x < 8:
		add(fwpm.ConditionIPProtocol, fwp.MatchEqual, fwp.U8(17))
	}
	if g.Rand.IntN(2) == 0 {
		add(fwpm.ConditionALEAppID, fwp.MatchEqual, fwp.Blob(g.app()))
	}
	if g.Rand.IntN(10) < 3 {
		add(fwpm.ConditionALEUserID, fwp.MatchEqual, fwp.Allow(fwp.UserSID(uint32(g.Rand.IntN(1000)))))
	}
	if len(f.Conditions) < 2 && id > 40 {
		add(fwpm.ConditionIPLocalPort, fwp.MatchEqual, fwp.U16(uint16(g.Rand.IntN(60000))))
	}
	if g.Rand.IntN(50) == 0 {
		add(fwpm.ConditionFlags, fwp.MatchFlagsAllSet, fwp.U32(uint32(fwp.FlagIsLoopback)))
	}
	return f
}

// Policy is n filters, numbered from 1.
func (g *Load) Policy(n int) *fwpm.Policy {
	p := &fwpm.Policy{Sublayers: []fwpm.Sublayer{{ID: "s0", Weight: 3}, {ID: "s1", Weight: 2}, {ID: "s2", Weight: 1}}}
	for id := 1; id <= n; id++ {
		p.Filters = append(p.Filters, g.Filter(id))
	}
	return p
}

// Connections are half aimed at filters and half at random.
func (g *Load) Connections(p *fwpm.Policy, n int) []fwps.Incoming {
	out := make([]fwps.Incoming, n)
	for i := range out {
		in := fwps.Incoming{Layer: g.layer, Protocol: 6, AppID: g.app(), UserID: uint32(g.Rand.IntN(1000)), UserKnown: true,
			Local: netip.AddrPortFrom(g.address(), uint16(g.Rand.IntN(60000))), Remote: netip.AddrPortFrom(g.address(), g.ports[g.Rand.IntN(len(g.ports))])}
		if i%2 == 0 {
			aim(&in, &p.Filters[g.Rand.IntN(len(p.Filters))])
		}
		out[i] = in
	}
	return out
}

func aim(in *fwps.Incoming, f *fwpm.Filter) {
	for _, c := range f.Conditions {
		switch {
		case c.Value.Prefix.IsValid():
			in.Remote = netip.AddrPortFrom(c.Value.Prefix.Addr(), in.Remote.Port())
		case c.Field == fwpm.ConditionIPRemotePort && c.Match == fwp.MatchEqual:
			in.Remote = netip.AddrPortFrom(in.Remote.Addr(), uint16(c.Value.Uint))
		case c.Field == fwpm.ConditionIPProtocol:
			in.Protocol = uint8(c.Value.Uint)
		case c.Field == fwpm.ConditionALEAppID:
			in.AppID = c.Value.Text
		case c.Field == fwpm.ConditionALEUserID:
			in.UserID, _, _ = c.Value.SD.ACEs[0].SID.Unix()
		}
	}
}
