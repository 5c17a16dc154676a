// Package policydraft writes policies that permit what was seen, for people to
// read, correct and keep.
package policydraft

import (
	"cmp"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/host/flight"
	"github.com/calloutd/calloutd/host/fwps"
)

// A Filter permits connections of one program.
type Filter struct {
	Program  string
	Inbound  bool
	Protocol uint8
	Ports    []uint16       // remote, or the program's own of inbound ones
	Networks []netip.Prefix // of the other end
}

// many is from how many addresses on a filter has their networks.
const many = 8

// networkBits are those of a network of many addresses, by family.
var networkBits = map[bool]int{true: 24, false: 64}

// a group is what filters are made of: connections that differ in their address.
type group struct {
	program  string
	inbound  bool
	protocol uint8
	port     uint16
}

// Filters are as few as permit all of the connections and not many others: those of
// a program to the same addresses are one.
func Filters(seen []*flight.Entry) []Filter {
	addresses := map[group]map[netip.Addr]bool{}
	for _, e := range seen {
		g, a := groupOf(e)
		if addresses[g] == nil {
			addresses[g] = map[netip.Addr]bool{}
		}
		addresses[g][a] = true
	}
	type same struct {
		group
		networks string
	}
	merged := map[same]*Filter{}
	var out []*Filter
	for g, as := range addresses {
		networks := networksOf(as)
		k := same{group{g.program, g.inbound, g.protocol, 0}, fmt.Sprint(networks)}
		f := merged[k]
		if f == nil {
			f = &Filter{Program: g.program, Inbound: g.inbound, Protocol: g.protocol, Networks: networks}
			merged[k], out = f, append(out, f)
		}
		f.Ports = append(f.Ports, g.port)
	}
	var fs []Filter
	for _, f := range out {
		slices.Sort(f.Ports)
		fs = append(fs, *f)
	}
	slices.SortFunc(fs, func(a, b Filter) int {
		return cmp.Or(cmp.Compare(a.Program, b.Program), compareBool(a.Inbound, b.Inbound), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Ports[0], b.Ports[0]),
			slices.CompareFunc(a.Networks, b.Networks, netip.Prefix.Compare))
	})
	return fs
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func groupOf(e *flight.Entry) (group, netip.Addr) {
	port := e.Remote.Port()
	if e.Inbound {
		port = e.Local.Port()
	}
	return group{e.Program, e.Inbound, e.Protocol, port}, e.Remote.Addr().Unmap().WithZone("")
}

// networksOf lists addresses, or where there are many their networks.
func networksOf(as map[netip.Addr]bool) (out []netip.Prefix) {
	for a := range as {
		bits := a.BitLen()
		if len(as) > many {
			bits = networkBits[a.Is4()]
		}
		if p, err := a.Prefix(bits); err == nil {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// Name is what denials and traces call the filter.
func (f *Filter) Name() string {
	ports := make([]string, len(f.Ports))
	for i, p := range f.Ports {
		ports[i] = strconv.Itoa(int(p))
	}
	who, where := path.Base(f.Program), "to "+strings.Join(ports, ", ")
	if f.Inbound {
		where = "accepts at " + strings.Join(ports, ", ")
	}
	if f.Program == "" {
		who = "unknown programs"
	}
	return fmt.Sprintf("%s %s (%s)", who, where, protocol(f.Protocol))
}

func protocol(p uint8) string {
	switch p {
	case fwps.ProtocolTCP:
		return "tcp"
	case fwps.ProtocolUDP:
		return "udp"
	}
	return strconv.Itoa(int(p))
}

// yaml is the filter as an item of a list that is indented so far.
func (f *Filter) yaml(indent string) string {
	layer, port := "ALE_AUTH_CONNECT", "IP_REMOTE_PORT"
	if f.Inbound {
		layer, port = "ALE_AUTH_RECV_ACCEPT", "IP_LOCAL_PORT"
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, indent+format+"\n", args...) }
	line("- name: %q", f.Name())
	line("  layer: %s", layer)
	line("  action: permit")
	line("  conditions:")
	if f.Program == "" { // Without a condition it would hold for every program.
		line("    - {field: ALE_APP_ID, value: FWP_EMPTY}")
	} else {
		line("    - {field: ALE_APP_ID%s, value: %q}", asItIs(f.Program), f.Program)
	}
	line("    - {field: IP_PROTOCOL, value: %s}", protocol(f.Protocol))
	line("    - {field: %s, value: %s}", port, list(f.Ports, func(p uint16) string { return strconv.Itoa(int(p)) }))
	line("    - {field: IP_REMOTE_ADDRESS, value: %s}", list(f.Networks, network))
	return b.String()
}

// asItIs is the match type that takes a path of a program that looks like a mistake.
func asItIs(program string) string {
	if !strings.HasPrefix(program, "/") || strings.HasSuffix(program, "/") || strings.Contains(program, "*") {
		return ", match: equal"
	}
	return ""
}

func network(p netip.Prefix) string {
	s := p.String()
	if p.IsSingleIP() {
		s = p.Addr().String()
	}
	return strconv.Quote(s)
}

func list[T any](all []T, text func(T) string) string {
	var words []string
	for _, v := range all {
		words = append(words, text(v))
	}
	if len(words) == 1 {
		return words[0]
	}
	return "[" + strings.Join(words, ", ") + "]"
}
