package policyfile

import (
	"net/netip"
	"slices"

	"go.yaml.in/yaml/v4"
)

// A ProxyKind is a kind of proxy.
type ProxyKind string

// The built-in local proxies.
const (
	ProxyInspect ProxyKind = "inspect" // answers with what it learned about the connection
	ProxyForward ProxyKind = "forward" // carries the connection to where it was going
	ProxyPeek    ProxyKind = "peek"    // the same, with the name that its first bytes ask for
	ProxyDNS     ProxyKind = "dns"     // carries DNS queries to where they were going, and remembers the answers
)

// What proxies of others understand.
const (
	ProxyProtocol    ProxyKind = "proxy-protocol"
	ProxySOCKS5      ProxyKind = "socks5"
	ProxyHTTPConnect ProxyKind = "http-connect"
)

var (
	builtinKinds = []ProxyKind{ProxyInspect, ProxyForward, ProxyPeek, ProxyDNS}
	foreignKinds = []ProxyKind{ProxyProtocol, ProxySOCKS5, ProxyHTTPConnect}
)

// Foreign reports whether such a proxy is somebody else's.
func (k ProxyKind) Foreign() bool { return slices.Contains(foreignKinds, k) }

func proxyKinds() []string {
	var names []string
	for _, k := range slices.Concat(builtinKinds, foreignKinds) {
		names = append(names, string(k))
	}
	return names
}

// A Proxy is a built-in proxy that the policy starts, or one of somebody else.
type Proxy struct {
	ID      string
	Kind    ProxyKind
	Listen  netip.AddrPort // of a built-in one; port zero lets the system choose
	Address netip.AddrPort // of one of somebody else; of the resolver that a dns proxy asks, if it is set
	// Credentials are for a proxy of somebody else. Optional.
	Credentials Credentials
	// ForgetsRecords: its own connections have no redirect records (RS-07).
	ForgetsRecords bool
}

// Credentials say where user:password is found.
type Credentials struct {
	File string // relative to the policy file's folder
	Env  string
}

func (r *reader) proxy(n *yaml.Node) {
	f, id := r.object(n, &proxyKeys, "proxy")
	px := Proxy{ID: id, Kind: ProxyKind(f.text("kind")), ForgetsRecords: f.truth("forgets_records"), Listen: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)}
	if s := f.text("listen"); s != "" {
		px.Listen = endpoint(s)
	}
	switch {
	case px.Kind == "":
	case px.Kind.Foreign():
		px.Listen = netip.AddrPort{}
		r.foreign(f, &px)
	default:
		for _, key := range []string{"address", "credentials"} {
			if k := f.keys[key]; k != nil && (key != "address" || px.Kind != ProxyDNS) {
				r.fail(at(k), "", "%s: only proxies of others have it, and %s is calloutd's own", key, px.Kind)
			}
		}
		r.address(f, &px)
	}
	if px.ForgetsRecords && px.Kind != ProxyForward && px.Kind != ProxyPeek {
		r.fail(at(f.vals["forgets_records"]), "", "forgets_records: only a proxy that carries connections on as forward and peek do has records to forget")
	}
	if a := px.where(); a.Port() != 0 {
		if other, taken := r.reached[a]; taken {
			r.fail(at(f.node), "", "proxy %q is where proxy %q is too, at %s", id, other, a)
		}
		r.reached[a] = id
	}
	r.Proxies = append(r.Proxies, px)
}

// foreign reads what is said about a proxy of somebody else.
func (r *reader) foreign(f fields, px *Proxy) {
	if k := f.keys["listen"]; k != nil {
		r.fail(at(k), "", "listen is for proxies of calloutd: a %s proxy has an address", px.Kind)
	}
	if f.keys["address"] == nil {
		r.fail(at(f.node), "", "address is missing: where the %s proxy is", px.Kind)
	}
	r.address(f, px)
	if f.keys["credentials"] == nil {
		return
	}
	c := r.inner(f, "credentials", &credentialKeys)
	px.Credentials = Credentials{File: c.text("file"), Env: c.text("env")}
	switch k := f.keys["credentials"]; {
	case px.Kind == ProxyProtocol:
		r.fail(at(k), "", "a proxy-protocol proxy asks for no credentials")
	case c.node != nil && c.node.Kind == yaml.MappingNode && (c.keys["file"] == nil) == (c.keys["env"] == nil):
		r.fail(at(k), "", "credentials have either file or env")
	}
}

func (r *reader) address(f fields, px *Proxy) {
	v := f.vals["address"]
	if v == nil {
		return
	}
	px.Address = endpoint(v.Value)
	if px.Address.Port() == 0 || px.Address.Addr().IsUnspecified() {
		r.fail(at(v), "", "address: expected an address and a port to connect to, found %s", describe(v))
	}
}

// endpoint reads an address that has the form. One of IPv4 is the same however it is
// written: connections are looked up by what they go to.
func endpoint(s string) netip.AddrPort {
	a := netip.MustParseAddrPort(s)
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// where is the address that it is reached at.
func (p Proxy) where() netip.AddrPort {
	if p.Kind.Foreign() {
		return p.Address
	}
	return p.Listen
}
