package policyfile

import (
	"net/netip"

	"go.yaml.in/yaml/v4"

	"github.com/calloutd/calloutd/host/fwpm"
)

// root reads the file. What others refer to comes first, wherever it stands.
func (r *reader) root(n *yaml.Node) {
	top := r.mapping(n, &fileKeys)
	for _, section := range []struct {
		key  string
		read func(*yaml.Node)
	}{
		{"providers", r.provider}, {"sublayers", r.sublayer}, {"proxies", r.proxy}, {"callouts", r.callout}, {"filters", r.filter},
	} {
		for _, n := range top.list(section.key) {
			section.read(n)
		}
	}
	r.number()
}

func (r *reader) provider(n *yaml.Node) {
	if f, id := r.object(n, &providerKeys, "provider"); id != "" {
		r.Policy.Providers = append(r.Policy.Providers, fwpm.Provider{ID: fwpm.ProviderID(id), Name: f.text("name")})
	}
}

func (r *reader) sublayer(n *yaml.Node) {
	if f, id := r.object(n, &sublayerKeys, "sublayer"); id != "" {
		r.Policy.Sublayers = append(r.Policy.Sublayers, fwpm.Sublayer{ID: fwpm.SublayerID(id), Name: f.text("name"),
			Provider: fwpm.ProviderID(f.text("provider")), Weight: uint16(f.number("weight"))})
	}
}

// object reads a mapping with an id. Without a right one there is nothing that
// others could refer to.
func (r *reader) object(n *yaml.Node, m *mapping, kind string) (fields, string) {
	f := r.mapping(n, m)
	id := f.text("id")
	if id != "" {
		r.place(f, kind, id)
	}
	return f, id
}

func (r *reader) proxy(n *yaml.Node) {
	f, id := r.object(n, &proxyKeys, "proxy")
	px := Proxy{ID: id, Kind: ProxyKind(f.text("kind")), Listen: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)}
	if s := f.text("listen"); s != "" {
		px.Listen = netip.MustParseAddrPort(s) // It has the form.
	}
	r.Proxies = append(r.Proxies, px)
}

func (r *reader) callout(n *yaml.Node) {
	f, id := r.object(n, &calloutKeys, "callout")
	c := Callout{ID: fwpm.CalloutID(id), Wasm: f.text("wasm"), GoPackage: f.text("go"), ContinueOnFailure: f.text("on_failure") == "continue"}
	if (f.keys["wasm"] == nil) == (f.keys["go"] == nil) {
		r.fail(at(n), "", "a callout has either wasm (a module's file) or go (a source folder)")
	}
	if cfg := f.vals["config"]; cfg != nil {
		c.config = r.config(cfg)
	}
	if id == "" {
		return
	}
	r.Callouts = append(r.Callouts, c)
	r.Policy.Callouts = append(r.Policy.Callouts, fwpm.Callout{ID: c.ID, Name: f.text("name"), Provider: fwpm.ProviderID(f.text("provider"))})
}
