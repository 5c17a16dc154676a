package conformance

import (
	"math/rand/v2"
	"net/netip"

	"pgregory.net/rapid"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
)

// connections makes connections of a layer from lists of what their parts can be.
type connections struct {
	rand    *rand.Rand
	in      fwps.Incoming
	layer   fwpm.LayerID
	locals  []netip.AddrPort
	remotes []netip.AddrPort
	other   []map[fwpm.ConditionID]fwp.Value
	records []redirect.Records
	flows   []*fwps.Flow
}

// members are the fields that Incoming has members for.
var members = map[fwpm.ConditionID]bool{fwpm.ConditionALEAppID: true, fwpm.ConditionALEUserID: true, fwpm.ConditionIPLocalAddress: true,
	fwpm.ConditionIPLocalAddressType: true, fwpm.ConditionIPLocalPort: true, fwpm.ConditionIPProtocol: true, fwpm.ConditionFlags: true,
	fwpm.ConditionIPRemoteAddress: true, fwpm.ConditionIPRemotePort: true, fwpm.ConditionIPDestinationAddressType: true, fwpm.ConditionALEOriginalAppID: true,
	fwpm.ConditionCompartmentID: true, fwpm.ConditionReauthorizeReason: true, fwpm.ConditionDirection: true}

func drawConnections(t *rapid.T, l fwpm.LayerID, callouts []*answering) *connections {
	g := &connections{layer: l, rand: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1)), records: []redirect.Records{nil}, flows: []*fwps.Flow{nil, {ID: 1}}}
	from := addresses4
	if l.IsV6() {
		from = addresses6
	}
	for _, a := range append([]netip.Addr{{}, addresses4[1], addresses6[1]}, from...) { // now and then of the other family
		g.locals = append(g.locals, netip.AddrPortFrom(a, uint16(pick(t, numbers))))
		g.remotes = append(g.remotes, netip.AddrPortFrom(a, uint16(pick(t, numbers))))
	}
	for range 4 {
		m := map[fwpm.ConditionID]fwp.Value{}
		for _, c := range l.Fields() {
			if !members[c] && chance(t, 2) {
				m[c] = drawValue(t, c.DataType(l))
			}
		}
		g.other = append(g.other, m)
	}
	var rs redirect.Records
	for range 3 {
		rs = rs.With(&redirect.Hop{Handle: redirect.Handle(rapid.IntRange(1, 5).Draw(t, "handle"))})
		g.records = append(g.records, rs)
	}
	f := new(fwps.Flow)
	for i, c := range callouts {
		_ = f.Associate(l, c.id, uint64(i+1), ignore{}, nil)
	}
	g.flows = append(g.flows, f)
	return g
}

// ignore is a flowDeleteFn that does nothing.
type ignore struct{}

func (ignore) FlowDelete(fwpm.LayerID, fwpm.CalloutID, uint64) {}

var peerNames = []*fwps.PeerNames{nil, nil, {Names: texts[:3]}, {Names: texts[2:]}, {Names: texts[4:6], Forgotten: true}, {Forgotten: true}}

func one[T any](g *connections, from []T) T { return from[g.rand.IntN(len(from))] }

// next is valid until it is called again.
func (g *connections) next() *fwps.Incoming {
	g.in = fwps.Incoming{Layer: g.layer, Protocol: one(g, []uint8{1, 6, 17, 58, 255}), Inbound: g.rand.IntN(2) == 0, Local: one(g, g.locals), Remote: one(g, g.remotes),
		Flags: one(g, []fwp.ConditionFlags{0, 0, fwp.FlagIsLoopback, fwp.FlagIsReauthorize, fwp.FlagIsWildcardBind, 5, 6, 7, ^fwp.ConditionFlags(0)}),
		AppID: one(g, texts), OriginalAppID: one(g, texts), UserID: one(g, []uint32{0, 7, 8}), UserKnown: g.rand.IntN(3) > 0,
		Groups: one(g, [][]uint32{nil, {7}, {0, 9}}), CompartmentID: uint32(one(g, numbers)), ReauthorizeReason: fwp.ReauthorizeReason(one(g, numbers)),
		Other: one(g, g.other), PeerNames: one(g, peerNames), Records: one(g, g.records), Flow: one(g, g.flows)}
	return &g.in
}
