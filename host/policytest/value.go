package policytest

import (
	"fmt"
	"net/netip"
	"os/user"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// text is a scalar that is not empty.
func (r *reader) text(v value) (string, bool) {
	if v.Kind != yaml.ScalarNode || v.Tag == "!!null" || v.Value == "" {
		r.bad(v, "text")
		return "", false
	}
	return v.Value, true
}

func (r *reader) number(v value, bits int, want string) (uint64, bool) {
	n, err := strconv.ParseUint(v.Value, 10, bits)
	if err != nil || v.Kind != yaml.ScalarNode {
		r.bad(v, want)
	}
	return n, err == nil
}

func (r *reader) program(v value, s *Step) {
	if s.Incoming.AppID, _ = r.text(v); v.Value == unknown {
		s.Incoming.AppID = ""
	}
}

// unknown is the word for a program or a user that nobody knows.
const unknown = "unknown"

// user is looked up on this system when it is a name, as the policy's is.
func (r *reader) user(v value, s *Step) {
	in := &s.Incoming
	in.UserKnown = v.Value != unknown
	if !in.UserKnown {
		return
	}
	id := v.Value
	if u, err := user.Lookup(id); err == nil {
		id = u.Uid
	}
	n, err := strconv.ParseUint(id, 10, 32)
	if err != nil || v.Kind != yaml.ScalarNode {
		r.bad(v, "a number, a user of this system or unknown")
	}
	in.UserID = uint32(n)
}

func (r *reader) groups(v value, s *Step) {
	s.Incoming.Groups = nil
	for _, n := range r.list(v) {
		if g, ok := r.number(value{v.key, n}, 32, "the number of a group"); ok {
			s.Incoming.Groups = append(s.Incoming.Groups, uint32(g))
		}
	}
}

func (r *reader) pid(v value, s *Step) {
	n, _ := r.number(v, 32, "the number of a process")
	s.Incoming.ProcessID = uint32(n)
}

func (r *reader) to(v value, s *Step) {
	s.toGiven = true
	if id, isProxy := r.proxy(v); isProxy {
		s.toProxy, s.Incoming.Remote = id, netip.AddrPort{}
		return
	}
	s.toProxy, s.Incoming.Remote = "", r.address(v)
}

func (r *reader) from(v value, s *Step) { s.Incoming.Local = r.address(v) }

// proxy reads proxy:ID, which Bind looks up.
func (r *reader) proxy(v value) (id string, ok bool) {
	id, ok = strings.CutPrefix(v.Value, "proxy:")
	if ok {
		r.refer("proxy", id, v)
	}
	return id, ok
}

func (r *reader) address(v value) netip.AddrPort {
	a, err := netip.ParseAddrPort(v.Value)
	if err != nil || v.Kind != yaml.ScalarNode {
		r.bad(v, "an address and a port, such as 198.51.100.7:80 or \"[2001:db8::7]:80\"")
	}
	return a
}

func (r *reader) protocol(v value, s *Step) {
	p, err := ParseProtocol(v.Value)
	if err != nil || v.Kind != yaml.ScalarNode {
		r.bad(v, "tcp, udp or a number up to 255")
	}
	s.Incoming.Protocol = p
}

func (r *reader) peerName(v value, s *Step) {
	name, ok := r.text(v)
	switch learned := strings.ToLower(strings.TrimSuffix(name, ".")); {
	case ok && learned != name:
		r.fail(v.Node, learned, "%s: expected a name in lower case, without a dot at its end, as proxies learn it, found %s", v.key, describe(v.Node))
	case ok:
		s.Incoming.Other = Called(s.Incoming.Other, name)
	}
}

func (r *reader) localInterface(v value, s *Step) {
	n, err := strconv.ParseUint(v.Value, 0, 64)
	if err != nil || v.Kind != yaml.ScalarNode {
		r.bad(v, "the number (LUID) of an interface")
	}
	s.Incoming.Other = OnInterface(s.Incoming.Other, n)
}

// Called is fields of a connection whose peer is called name.
func Called(fields map[fwpm.ConditionID]fwp.Value, name string) map[fwpm.ConditionID]fwp.Value {
	return also(fields, fwpm.ConditionPeerName, fwp.Blob(name))
}

// OnInterface is fields of a connection with the LUID of the interface that it uses.
func OnInterface(fields map[fwpm.ConditionID]fwp.Value, luid uint64) map[fwpm.ConditionID]fwp.Value {
	return also(fields, fwpm.ConditionIPLocalInterface, fwp.U64(luid))
}

// also is fields with one more; the map may be that of other connections too.
func also(fields map[fwpm.ConditionID]fwp.Value, c fwpm.ConditionID, v fwp.Value) map[fwpm.ConditionID]fwp.Value {
	out := map[fwpm.ConditionID]fwp.Value{c: v}
	for k, v := range fields {
		if k != c {
			out[k] = v
		}
	}
	return out
}

// PeerNamed are the fields of a connection whose peer is called name (PEER_NAME).
func PeerNamed(name string) map[fwpm.ConditionID]fwp.Value {
	return map[fwpm.ConditionID]fwp.Value{fwpm.ConditionPeerName: fwp.Blob(name)}
}

// ParseProtocol reads an IP protocol: tcp, udp or a number.
func ParseProtocol(s string) (uint8, error) {
	switch s {
	case "tcp":
		return fwps.ProtocolTCP, nil
	case "udp":
		return fwps.ProtocolUDP, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("%q: expected tcp, udp or a number up to 255", s)
	}
	return uint8(n), nil
}

func (r *reader) truth(v value) (on bool) {
	if v.Tag != "!!bool" || v.Decode(&on) != nil {
		r.bad(v, "true or false")
	}
	return on
}

func (r *reader) inbound(v value, s *Step) { s.Incoming.Inbound = r.truth(v) }
func (r *reader) listen(v value, s *Step)  { s.Listen = r.truth(v) }
