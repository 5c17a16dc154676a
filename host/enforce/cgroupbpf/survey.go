package cgroupbpf

import (
	"context"
	"maps"
	"net/netip"
	"slices"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

func conditions(p *fwpm.Policy, field fwpm.ConditionID) []fwpm.Condition {
	var out []fwpm.Condition
	for i := range p.Filters {
		for _, c := range p.Filters[i].Conditions {
			if c.Field == field {
				out = append(out, c)
			}
		}
	}
	return out
}

// A survey asks a policy about one connection at a time.
type survey struct {
	policy  *fwpm.Policy
	program *arbitrate.Program
	hints   [2][]hint // for TCP and UDP, for other protocols
	d       fwps.Decision
}

// prefixes are all that a family's conditions name, and the whole space; v4 ones
// are v4-mapped, as the kernel's key has them.
func (s *survey) prefixes(f family) []netip.Prefix {
	all := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	mappedSpace := netip.MustParsePrefix("::ffff:0:0/96")
	if f != v6 {
		all = mappedSpace
	}
	seen := map[netip.Prefix]bool{all: true}
	for i := range s.policy.Filters {
		x := &s.policy.Filters[i]
		if !slices.ContainsFunc(steps, func(step fwpm.LayerID) bool { return layerOf(step, f) == x.Layer }) {
			continue
		}
		for _, c := range x.Conditions {
			p, ok := prefixOf(c.Value)
			if c.Field != fwpm.ConditionIPRemoteAddress || !ok {
				continue
			}
			if inside := p.Bits() >= all.Bits() && all.Contains(p.Addr()); inside {
				seen[p] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(seen), func(a, b netip.Prefix) int { return a.Bits() - b.Bits() })
}

// prefixOf is the prefix that an address value names, v4 as v4-mapped.
func prefixOf(v fwp.Value) (netip.Prefix, bool) {
	switch v.Type {
	case fwp.V4AddrMask, fwp.V6AddrMask:
		return mapPrefix(v.Prefix), v.Prefix.IsValid()
	case fwp.Uint32:
		u := uint32(v.Uint)
		return mapPrefix(netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(u >> 24), byte(u >> 16), byte(u >> 8), byte(u)}), 32)), true
	case fwp.ByteArray16:
		return netip.PrefixFrom(v.Addr, 128), true
	}
	return netip.Prefix{}, false
}

func mapPrefix(p netip.Prefix) netip.Prefix {
	if !p.Addr().Is4() {
		return p.Masked()
	}
	return netip.PrefixFrom(netip.AddrFrom16(p.Addr().As16()), p.Bits()+96).Masked()
}

// decide fills in what a cell's connections come to. False is a cell without
// connections: longer prefixes cover all of it.
func (s *survey) decide(c *cell, prefixes []netip.Prefix, port uint16, uid uint32) bool {
	a, ok := representative(c.prefix, prefixes)
	if !ok {
		return false
	}
	in := fwps.Incoming{Protocol: c.protocol, UserID: uid, UserKnown: true, AppID: unknownProgram}
	hints := s.hints[0]
	if c.protocol == 0 {
		in.Protocol, hints = 255, s.hints[1] // 255 is reserved: nobody names it.
	}
	c.verdict = permit
	for _, step := range steps {
		in.Layer = layerOf(step, c.family)
		at := a
		if !in.Layer.IsV6() {
			at = a.Unmap()
		}
		in.Remote = netip.AddrPortFrom(at, port)
		in.Local = netip.AddrPortFrom(unspecified(in.Layer), 0)
		if v := s.needsMore(&in, hints); v != permit {
			c.verdict = v
			return true
		}
		s.program.Classify(context.Background(), &in, &s.d)
		if s.d.Action == fwp.ActionPermit {
			continue
		}
		if in.Layer.IsConnectRedirect() || in.Layer.IsBindRedirect() || step == fwpm.LayerALEFlowEstablishedV4 {
			continue // CH-16, ALE-LAY-10
		}
		c.verdict, c.layer = block, in.Layer
		if by := s.d.Decider(); by != nil {
			c.filter, c.filterName = by.Filter, by.Name
		}
		return true
	}
	return true
}

// unknownProgram stands for a path in cells, which no filter names.
const unknownProgram = "\x00"

func unspecified(l fwpm.LayerID) netip.Addr {
	if l.IsV6() {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// representative is an address of a prefix that no longer one of the list covers.
func representative(p netip.Prefix, list []netip.Prefix) (netip.Addr, bool) {
	var longer []netip.Prefix
	for _, q := range list {
		if q.Bits() > p.Bits() && p.Contains(q.Addr()) {
			longer = append(longer, q)
		}
	}
	free := func(a netip.Addr) bool {
		return a.IsValid() && p.Contains(a) && !slices.ContainsFunc(longer, func(q netip.Prefix) bool { return q.Contains(a) })
	}
	if free(p.Addr()) {
		return p.Addr(), true
	}
	for _, q := range longer { // Where the first gap begins, a longer one ends.
		if a := last(q).Next(); free(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// last is the highest address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().As16()
	for bit := p.Bits(); bit < 128; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom16(b)
}
