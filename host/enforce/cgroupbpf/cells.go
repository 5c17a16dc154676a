package cgroupbpf

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/calloutd/calloutd/host/arbitrate"
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
	kernel = 251 // nor this: a thread of the kernel connects
	away   = 250 // nor this: a packet for loopback would leave by another device
	onLink = 249 // nor this: what goes to an address of a link that is not known
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
