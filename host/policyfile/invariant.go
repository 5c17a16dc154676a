package policyfile

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// An Invariant says what must become of some connections. Nothing enforces it.
type Invariant struct {
	Name      string
	Program   string // empty: of every one; a folder ends in /
	User      uint32
	UserKnown bool // else: of every user
	Protocol  uint8
	To, NotTo []netip.Prefix
	Ports     []uint16
	Must      []string // permit, block, redirect
	Proxies   []string // to which a redirect must go; none: to any
	// Place is where it stands, as file:line.
	Place string
}

// About reports whether a connection is one that it is about.
func (v *Invariant) About(program string, user uint32, userKnown bool, protocol uint8, to netip.AddrPort) bool {
	a := to.Addr().Unmap()
	in := func(ps []netip.Prefix) bool {
		return slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	folder := strings.HasSuffix(v.Program, "/")
	switch {
	case v.Program != "" && !folder && program != v.Program, folder && !strings.HasPrefix(program, v.Program):
	case v.UserKnown && (!userKnown || user != v.User):
	case v.Protocol != 0 && protocol != v.Protocol:
	case len(v.To) > 0 && !in(v.To), in(v.NotTo):
	case len(v.Ports) > 0 && !slices.Contains(v.Ports, to.Port()):
	default:
		return true
	}
	return false
}

var invariantProtocols = map[string]uint8{"tcp": 6, "udp": 17}

func (r *reader) invariant(n *yaml.Node) {
	f := r.mapping(n, &invariantKeys)
	v := Invariant{Name: f.text("name"), Program: f.text("program"), Protocol: invariantProtocols[f.text("protocol")], To: f.prefixes("to"), NotTo: f.prefixes("not_to"),
		Must: f.words("must"), Proxies: f.words("proxies"), Place: ShownPath(r.name) + ":" + strconv.Itoa(at(n).line)}
	v.User, v.UserKnown = uint32(f.number("user")), f.vals["user"] != nil
	for _, w := range f.words("ports") {
		if p, err := strconv.ParseUint(w, 0, 16); err == nil { // It has the form.
			v.Ports = append(v.Ports, uint16(p))
		}
	}
	if f.keys["must"] != nil && f.vals["must"] != nil && len(v.Must) == 0 {
		r.fail(at(f.vals["must"]), "", "must: the list is empty, so nothing could be right")
	}
	for _, k := range []struct{ key, so string }{{"to", "it is about every destination"}, {"not_to", "nothing is left out"}, {"ports", "it is about every port"},
		{"proxies", "a redirect may go anywhere"}} {
		if n := f.vals[k.key]; n != nil && n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
			r.notes = append(r.notes, note{at(n), k.key + ": the list is empty, which is the same as none: " + k.so})
		}
	}
	r.Invariants = append(r.Invariants, v)
}

func (f fields) prefixes(key string) (out []netip.Prefix) {
	for _, w := range f.words(key) {
		if p, _ := parsePrefix(w); p.IsValid() {
			out = append(out, p.Masked())
		}
	}
	return out
}
