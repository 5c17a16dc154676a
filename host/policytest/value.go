package policytest

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/sdk/go/sockaddr"
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

func (r *reader) program(v value, s *Step) { s.Incoming.AppID, _ = r.text(v) }

// user is looked up on this system when it is a name, as the policy's is.
func (r *reader) user(v value, s *Step) {
	in := &s.Incoming
	in.UserKnown = v.Value != "unknown"
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
	if name, ok := r.text(v); ok {
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
	return also(fields, fwpm.ConditionIPLocalInterface, fwp.Value{Type: fwp.Uint64, Uint: luid})
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

// want keeps what is expected as it is written.
func (r *reader) want(v value, s *Step) *Want {
	at, end := r.span(v.Node)
	s.Want = append(s.Want, Want{Key: v.key, Place: place(v.Node), Text: v.Value, at: at, end: end})
	return &s.Want[len(s.Want)-1]
}

func (r *reader) oneOf(v value, s *Step, what string, known ...string) {
	if v.Kind != yaml.ScalarNode || !slices.Contains(known, v.Value) {
		r.bad(v, what, known...)
	}
	r.want(v, s)
}

func (r *reader) action(v value, s *Step) {
	r.oneOf(v, s, "an action", Permit, Block, Redirect)
}

func (r *reader) destination(v value, s *Step) {
	if _, isProxy := r.proxy(v); !isProxy && v.Value != None {
		r.address(v)
	}
	r.want(v, s)
}

// filter is checked by Bind.
func (r *reader) filter(v value, s *Step)  { r.named("filter", v, s) }
func (r *reader) callout(v value, s *Step) { r.named("callout", v, s) }

func (r *reader) provider(v value, s *Step) { r.named("provider", v, s) }

func (r *reader) refer(kind, name string, v value) {
	r.references = append(r.references, reference{kind, name, place(v.Node), r.with})
}

func (r *reader) named(kind string, v value, s *Step) {
	if name, ok := r.text(v); ok && name != None {
		r.refer(kind, name, v)
	}
	r.want(v, s)
}

func (r *reader) layer(v value, s *Step) {
	var known []string
	for _, l := range fwpm.Layers() {
		known = append(known, l.String())
		if !l.IsV6() {
			known = append(known, family(l.String()))
		}
	}
	r.oneOf(v, s, "a layer", known...)
}

// family is the name of a layer for both families.
func family(layer string) string {
	return strings.TrimSuffix(strings.TrimSuffix(layer, "_V4"), "_V6")
}

func (r *reader) word(v value, s *Step) {
	r.text(v)
	r.want(v, s)
}

func (r *reader) state(v value, s *Step) {
	known := []string{None}
	for st := redirect.NotRedirected; st <= redirect.PreviouslyRedirectedBySelf; st++ {
		known = append(known, st.String())
	}
	r.oneOf(v, s, "a redirect state", known...)
}

func (r *reader) sound(v value, s *Step) { r.oneOf(v, s, "true", "true") }

// blob reads the bytes of a context or record.
func (r *reader) blob(v value, s *Step) {
	if v.Kind == yaml.ScalarNode {
		w := r.want(v, s)
		if v.Value != None {
			w.Bytes = []byte(v.Value)
		}
		return
	}
	vs := r.mapping(v.Node, v.key, []string{"text", "hex", "sockaddr"})
	if len(vs) != 1 {
		if v.Kind == yaml.MappingNode && len(v.Content) != 2 {
			r.fail(v.Node, "", "%s: expected one of text, hex, sockaddr", v.key)
		}
		return
	}
	inner := value{v.key, vs[0].Node}
	switch vs[0].key {
	case "text":
		r.want(inner, s).Bytes = []byte(inner.Value)
	case "hex":
		b, err := hex.DecodeString(strings.ReplaceAll(inner.Value, " ", ""))
		if err != nil || inner.Kind != yaml.ScalarNode {
			r.bad(inner, "hexadecimal digits, two for a byte")
		}
		w := r.want(inner, s)
		w.Bytes, w.form = b, asHex
	case "sockaddr":
		w := r.want(inner, s)
		w.form = asSockaddr
		for _, n := range r.list(inner) {
			at, end := r.span(n)
			w.more = append(w.more, span{at, end})
			w.Bytes = sockaddr.Append(w.Bytes, r.address(value{v.key, n}))
		}
	}
}

// span is where a scalar on one line stands in the file, two zeros if that cannot
// be said.
func (r *reader) span(n *yaml.Node) (at, end int) {
	if n.Kind != yaml.ScalarNode || n.Line < 1 || n.Line > len(r.lines) {
		return 0, 0
	}
	at = r.lines[n.Line-1]
	for range n.Column - 1 { // Columns count characters.
		_, size := utf8.DecodeRune(r.src[at:])
		at += size
	}
	switch rest := string(r.src[at:]); {
	case strings.HasPrefix(rest, `"`), strings.HasPrefix(rest, "'"):
		return at, at + quoted(rest)
	case strings.HasPrefix(rest, n.Value):
		return at, at + len(n.Value)
	}
	return 0, 0
}

// quoted is the length of the quoted text that s begins with.
func quoted(s string) int {
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && s[0] == '"':
			i++
		case s[i] == s[0] && s[0] == '\'' && strings.HasPrefix(s[i+1:], "'"):
			i++
		case s[i] == s[0]:
			return i + 1
		}
	}
	return len(s)
}
