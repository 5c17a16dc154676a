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

// A verdict is what the kernel does without asking.
type verdict uint32

const (
	ask verdict = iota // the engine, about a connection; a datagram is refused
	permit
	block
	callout // the engine, about a datagram, too: a callout may redirect it
)

// A family says at which layers an address is asked about. The values are the
// kernel part's.
type family uint8

const (
	v4     family = 4
	v6     family = 6
	mapped family = 46
)

// A cell is a part of the space of connections that the policy decides alike, by
// the longest prefix that covers the address. V4 addresses are v4-mapped.
type cell struct {
	family     family
	protocol   uint8 // zero: neither TCP nor UDP; or others, or raw
	portClass  uint16
	userClass  uint16
	prefix     netip.Prefix
	verdict    verdict
	filter     fwpm.FilterID // what blocks
	layer      fwpm.LayerID
	filterName string
}

// Protocols of the cells of sockets that are decided when they are made, since the
// kernel's part does not see where they send to. The values are the kernel part's.
const (
	others uint8 = 254 // what is neither TCP nor UDP
	raw    uint8 = 255 // anything

	bound  = 253 // no cell has it: a socket that is bound to a device
	routed = 252 // nor this: a packet with a source route
)

// A table is the kernel's part of a policy.
type table struct {
	cells []cell
	ports [1 << 16]uint16   // the class of each port
	users map[uint32]uint16 // the class of each user that the policy names; others have 0
}

// maxCells is how many the kernel's map holds for one generation. A policy that
// needs more is asked about everything.
const maxCells = 1 << 17

// steps are the layers of an outgoing connection, in order.
var steps = []fwpm.LayerID{fwpm.LayerALEBindRedirectV4, fwpm.LayerALEResourceAssignmentV4, fwpm.LayerALEConnectRedirectV4,
	fwpm.LayerALEAuthConnectV4, fwpm.LayerALEFlowEstablishedV4}

// layerOf is the layer of a step that a family is asked about at (ALE-LAY-16).
func layerOf(step fwpm.LayerID, f family) fwpm.LayerID {
	early := step == fwpm.LayerALEBindRedirectV4 || step == fwpm.LayerALEResourceAssignmentV4 || step == fwpm.LayerALEConnectRedirectV4
	return step.ForFamily(f == v6 || f == mapped && early)
}

// newTable computes the cells of a policy by asking its arbitration about one
// connection of each.
func newTable(p *fwpm.Policy) (*table, error) {
	t := &table{users: map[uint32]uint16{}}
	callouts := &arbitrate.Slot{} // never called: a cell with a callout is asked about
	prog, err := arbitrate.Compile(p, arbitrate.Options{Lookup: func(fwpm.CalloutID) *arbitrate.Slot { return callouts }})
	if err != nil {
		return nil, err
	}
	ports := portIntervals(p)
	for class, low := range ports {
		high := 1 << 16
		if class+1 < len(ports) {
			high = int(ports[class+1])
		}
		for port := int(low); port < high; port++ {
			t.ports[port] = uint16(class)
		}
	}
	users := mentionedUsers(p)
	for class, uid := range users[1:] {
		t.users[uid] = uint16(class + 1)
	}
	s := &survey{policy: p, program: prog}
	for i, other := range []bool{false, true} {
		if s.hints[i], err = hints(p, other); err != nil {
			return nil, err
		}
	}
	for _, f := range []family{v4, v6, mapped} {
		prefixes := s.prefixes(f)
		if len(t.cells)+len(prefixes)*len(ports)*len(users)*3 > maxCells {
			t.cells = nil
			return t, nil
		}
		for _, protocol := range []uint8{0, fwps.ProtocolTCP, fwps.ProtocolUDP} {
			for portClass, port := range ports {
				for userClass, uid := range users {
					for _, prefix := range prefixes {
						c := cell{family: f, protocol: protocol, portClass: uint16(portClass), userClass: uint16(userClass), prefix: prefix}
						if s.decide(&c, prefixes, port, uid) {
							t.cells = append(t.cells, c)
						}
					}
				}
			}
		}
	}
	t.addUnseen()
	return t, nil
}

// addUnseen adds the cells of sockets that can send to every cell of their family, or to
// those of other protocols than TCP and UDP: what one of these is not permitted, such a
// socket is not.
func (t *table) addUnseen() {
	type key struct {
		family    family
		userClass uint16
		protocol  uint8
	}
	found := map[key]cell{}
	for _, c := range t.cells {
		for _, protocol := range []uint8{others, raw} {
			if c.family == mapped || protocol == others && c.protocol != 0 {
				continue
			}
			k := key{c.family, c.userClass, protocol}
			if known, there := found[k]; !there || known.verdict == permit || known.verdict != block && c.verdict == block {
				c.protocol, c.portClass, c.prefix = protocol, t.ports[0], netip.PrefixFrom(netip.IPv6Unspecified(), 0)
				found[k] = c
			}
		}
	}
	t.cells = append(t.cells, slices.Collect(maps.Values(found))...)
}

// portIntervals are the lowest ports of the intervals that no condition divides.
func portIntervals(p *fwpm.Policy) []uint16 {
	lows := map[uint16]bool{0: true}
	edge := func(at uint64) {
		if at < 1<<16 {
			lows[uint16(at)] = true
		}
	}
	for _, c := range conditions(p, fwpm.ConditionIPRemotePort) {
		low, high := c.Value, c.Value
		if c.Value.Range != nil {
			low, high = c.Value.Range.Low, c.Value.Range.High
		}
		edge(low.Uint)
		edge(low.Uint + 1)
		edge(high.Uint)
		edge(high.Uint + 1)
	}
	return slices.Sorted(maps.Keys(lows))
}

// mentionedUsers begins with a user that the policy does not name.
func mentionedUsers(p *fwpm.Policy) []uint32 {
	named := map[uint32]bool{}
	for _, c := range conditions(p, fwpm.ConditionALEUserID) {
		if c.Value.SD == nil {
			continue
		}
		for _, a := range c.Value.SD.ACEs {
			if id, group, ok := a.SID.Unix(); ok && !group {
				named[id] = true
			}
		}
	}
	other := ^uint32(0) - 1
	for named[other] {
		other--
	}
	return append([]uint32{other}, slices.Sorted(maps.Keys(named))...)
}

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

// A hint is what the kernel knows of a filter.
type hint struct {
	layer fwpm.LayerID
	// part has the filter with those of its fields that the kernel knows.
	part  *arbitrate.Program
	needs verdict // ask: there are other fields; callout: or a callout; else permit
}

// hints prepares every filter once, for TCP and UDP or for the other protocols.
func hints(p *fwpm.Policy, otherProtocol bool) ([]hint, error) {
	out := make([]hint, 0, len(p.Filters))
	for i := range p.Filters {
		f := &p.Filters[i]
		unknown := map[fwpm.ConditionID]bool{}
		for _, c := range f.Conditions {
			unknown[c.Field] = unknown[c.Field] || !kernelKnows(&c, otherProtocol)
		}
		part := fwpm.Filter{ID: f.ID, Name: f.Name, Layer: f.Layer, Action: fwp.ActionBlock}
		for _, c := range f.Conditions {
			if !unknown[c.Field] { // A field's conditions are alternatives: all or none.
				part.Conditions = append(part.Conditions, c)
			}
		}
		prog, err := arbitrate.Compile(&fwpm.Policy{Filters: []fwpm.Filter{part}}, arbitrate.Options{})
		if err != nil {
			return nil, err
		}
		h := hint{f.Layer, prog, permit}
		switch {
		case f.Action.CallsOut():
			h.needs = callout
		case len(part.Conditions) < len(f.Conditions):
			h.needs = ask
		}
		out = append(out, h)
	}
	return out, nil
}

// needsMore is permit unless a filter that may match asks for more than the kernel
// knows: a field beyond address, port, protocol and user, or a callout.
func (s *survey) needsMore(in *fwps.Incoming, hints []hint) verdict {
	needs := permit
	for i := range hints {
		h := &hints[i]
		if h.needs == permit || h.layer != in.Layer {
			continue
		}
		if h.part.Classify(context.Background(), in, &s.d); s.d.Action != fwp.ActionBlock {
			continue
		}
		if needs = h.needs; needs == callout {
			return callout
		}
	}
	return needs
}

// kernelKnows reports whether a cell decides a condition.
func kernelKnows(c *fwpm.Condition, otherProtocol bool) bool {
	switch c.Field {
	case fwpm.ConditionIPProtocol: // The other protocols are one cell.
		return !otherProtocol || c.Match == fwp.MatchEqual && (c.Value.Uint == uint64(fwps.ProtocolTCP) || c.Value.Uint == uint64(fwps.ProtocolUDP))
	case fwpm.ConditionIPRemotePort:
		return c.Value.Type != fwp.Empty
	case fwpm.ConditionIPRemoteAddress:
		_, prefix := prefixOf(c.Value)
		return prefix && (c.Match == fwp.MatchEqual || c.Match == fwp.MatchNotEqual)
	case fwpm.ConditionALEUserID:
		return c.Value.SD != nil && !slices.ContainsFunc(c.Value.SD.ACEs, func(a fwp.ACE) bool {
			_, group, unix := a.SID.Unix()
			return group || !unix && a.SID != fwp.SIDEveryone
		})
	}
	return false
}
