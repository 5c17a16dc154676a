package policytest

import (
	"encoding/json"
	"iter"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyfile"
)

// A Space is the connections at the boundaries of policies: every value that a
// condition names, and those beside it.
type Space struct {
	programs  []string
	users     []uint32
	addresses []netip.Addr
	has       map[netip.Addr]bool // addresses: a list of networks is long
	ports     []uint16
	protocols []uint8
	inbound   []bool
	// What most connections do not have; the first is without.
	names      []string
	interfaces []uint64
}

// Boundaries is the space of what the conditions of policies and the sets, tables
// and configurations of their callouts name.
func Boundaries(worlds ...*World) *Space {
	s := &Space{programs: []string{"/usr/bin/curl"}, users: []uint32{1000}, protocols: []uint8{fwps.ProtocolTCP, fwps.ProtocolUDP}, inbound: []bool{false}, names: []string{""}, interfaces: []uint64{0}}
	s.address(netip.MustParseAddr("192.0.2.1"))
	s.address(netip.MustParseAddr("2001:db8::1"))
	s.port(443, 443)
	for _, w := range worlds {
		for i := range w.Policy.Policy.Filters {
			s.filter(&w.Policy.Policy.Filters[i])
		}
		for i := range w.Policy.Callouts {
			s.callout(&w.Policy.Callouts[i], w.Proxies)
		}
	}
	return s
}

// Numbers takes constants of callouts' code: those that can be ports, and those
// that can be addresses, in either order of their bytes.
func (s *Space) Numbers(ns []uint32) {
	for _, n := range ns {
		switch {
		case n == 0:
		case n <= 0xffff:
			insert(&s.ports, uint16(n))
		default:
			s.insert(address4(uint64(n)))
			s.insert(address4(uint64(bits.ReverseBytes32(n))))
		}
	}
}

func insert[T comparable](list *[]T, v T) {
	if !slices.Contains(*list, v) {
		*list = append(*list, v)
	}
}

func (s *Space) insert(a netip.Addr) {
	if !s.has[a] {
		if s.has == nil {
			s.has = map[netip.Addr]bool{}
		}
		s.has[a] = true
		s.addresses = append(s.addresses, a)
	}
}

func (s *Space) filter(f *fwpm.Filter) {
	if f.Layer.ForFamily(false) == fwpm.LayerALEAuthRecvAcceptV4 {
		insert(&s.inbound, true)
	}
	for i := range f.Conditions {
		c := &f.Conditions[i]
		low, high := c.Value, c.Value
		if c.Value.Type == fwp.RangeType && c.Value.Range != nil {
			low, high = c.Value.Range.Low, c.Value.Range.High
		}
		switch {
		case c.Field.IsAddress():
			s.addressValue(low)
			s.addressValue(high)
		case c.Field == fwpm.ConditionIPRemotePort || c.Field == fwpm.ConditionIPLocalPort:
			s.port(uint16(low.Uint), uint16(high.Uint))
		case c.Field == fwpm.ConditionIPProtocol:
			insert(&s.protocols, uint8(low.Uint))
		case c.Field == fwpm.ConditionALEAppID:
			s.program(c)
		case c.Field == fwpm.ConditionPeerName:
			s.name(c)
		case c.Field == fwpm.ConditionIPLocalInterface:
			for _, n := range []uint64{low.Uint - 1, low.Uint, high.Uint, high.Uint + 1} {
				insert(&s.interfaces, n)
			}
		case c.Field == fwpm.ConditionALEUserID && c.Value.SD != nil:
			for _, a := range c.Value.SD.ACEs {
				if id, group, ok := a.SID.Unix(); ok && !group {
					insert(&s.users, id)
				}
			}
		}
	}
}

func (s *Space) program(c *fwpm.Condition) {
	p := c.Value.Text
	if c.Match == fwp.MatchPrefix || c.Match == fwp.MatchNotPrefix {
		p = "/opt" + p // The end of a path (AMB-34).
	}
	if p != "" {
		insert(&s.programs, p)
	}
}

// name takes the name of a peer, and of one that ends in it.
func (s *Space) name(c *fwpm.Condition) {
	n := strings.ToLower(c.Value.Text) // As proxies learn it.
	if c.Match == fwp.MatchPrefix || c.Match == fwp.MatchNotPrefix {
		n = "a." + strings.TrimPrefix(n, ".") // The end of a name (AMB-34).
	}
	insert(&s.names, n)
}

func (s *Space) addressValue(v fwp.Value) {
	switch v.Type {
	case fwp.V4AddrMask, fwp.V6AddrMask:
		s.prefix(v.Prefix)
	case fwp.ByteArray16:
		s.address(v.Addr)
	case fwp.Uint32:
		s.address(address4(v.Uint))
	}
}

func (s *Space) prefix(p netip.Prefix) {
	p = p.Masked()
	s.address(p.Addr())
	last := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(last)*8; bit++ {
		last[bit/8] |= 1 << (7 - bit%8)
	}
	if a, ok := netip.AddrFromSlice(last); ok {
		s.address(a)
	}
}

// address takes an address and its neighbours, and what a dual-stack socket calls it,
// which other layers are asked about (ALE-LAY-16).
func (s *Space) address(a netip.Addr) {
	for _, a := range []netip.Addr{a.Prev(), a, a.Next()} {
		if a.IsValid() && !a.IsUnspecified() {
			s.insert(a)
		}
	}
	if a.Is4() && !a.IsUnspecified() {
		s.insert(netip.AddrFrom16(a.As16()))
	}
}

func (s *Space) port(low, high uint16) {
	for _, p := range []int{int(low) - 1, int(low), int(high), int(high) + 1} {
		if p > 0 && p <= 0xffff {
			insert(&s.ports, uint16(p))
		}
	}
}

// callout takes what a callout's lists and configuration name: texts that are
// addresses, prefixes or ports.
func (s *Space) callout(c *policyfile.Callout, proxies map[string]netip.AddrPort) {
	for _, set := range c.Sets {
		for _, p := range set {
			s.prefix(p)
		}
	}
	for _, table := range c.Tables {
		for _, row := range table {
			s.prefix(row.Prefix)
			if row.Value > 0 && row.Value <= 0xffff {
				s.port(uint16(row.Value), uint16(row.Value))
			}
		}
	}
	var v any
	if config, err := c.ConfigJSON(proxies, 1); err == nil && json.Unmarshal(config, &v) == nil {
		s.config(v)
	}
}

func (s *Space) config(v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			s.config(v[k])
		}
	case []any:
		for _, x := range v {
			s.config(x)
		}
	case string:
		s.word(v)
	}
}

func (s *Space) word(w string) {
	if p, err := netip.ParsePrefix(w); err == nil {
		s.prefix(p)
	} else if a, err := netip.ParseAddr(w); err == nil {
		s.address(a)
	}
	low, high, ranged := strings.Cut(w, "-")
	if !ranged {
		high = low
	}
	a, err1 := strconv.ParseUint(low, 10, 16)
	b, err2 := strconv.ParseUint(high, 10, 16)
	if err1 == nil && err2 == nil {
		s.port(uint16(a), uint16(b))
	}
}

// Size is how many connections the space has.
func (s *Space) Size() int {
	return len(s.inbound) * len(s.protocols) * len(s.programs) * len(s.users) * len(s.addresses) * len(s.ports) * len(s.names) * len(s.interfaces)
}

// At is one of the connections, from 0 to Size.
func (s *Space) At(i int) fwps.Incoming {
	take := func(n int) (at int) {
		at, i = i%n, i/n
		return at
	}
	to := netip.AddrPortFrom(s.addresses[take(len(s.addresses))], s.ports[take(len(s.ports))])
	in := fwps.Incoming{Remote: to, ProcessID: 1000, UserKnown: true}
	in.Protocol, in.AppID = s.protocols[take(len(s.protocols))], s.programs[take(len(s.programs))]
	in.UserID = s.users[take(len(s.users))]
	if name := s.names[take(len(s.names))]; name != "" {
		in.Other = Called(in.Other, name)
	}
	if luid := s.interfaces[take(len(s.interfaces))]; luid != 0 {
		in.Other = OnInterface(in.Other, luid)
	}
	if in.Inbound = s.inbound[take(len(s.inbound))]; in.Inbound {
		// Who connects has the address, and the program the port.
		in.Local, in.Remote = netip.AddrPortFrom(sourceFor(netip.AddrPort{}, to).Addr(), to.Port()), netip.AddrPortFrom(to.Addr(), ephemeral)
	}
	return in
}

// Some lists at most limit places of the space, evenly spread over it: all of
// them when it has no more.
func (s *Space) Some(limit int) func(yield func(fwps.Incoming) bool) {
	const prime = 1_000_003
	return func(yield func(fwps.Incoming) bool) {
		size := s.Size()
		step := 1
		if size > limit {
			for step = prime; size%step == 0; step += 2 {
			}
		}
		for i, at := 0, 0; i < min(size, limit); i, at = i+1, (at+step)%size {
			if !yield(s.At(at)) {
				return
			}
		}
	}
}

// Questions are Some of the connections as what a Comparison is over.
func (s *Space) Questions(limit int) iter.Seq2[Question, error] {
	return func(yield func(Question, error) bool) {
		s.Some(limit)(func(in fwps.Incoming) bool { return yield(Question{In: in}, nil) })
	}
}

func address4(n uint64) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}
