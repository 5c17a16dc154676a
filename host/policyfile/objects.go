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
	f := r.mapping(n, &providerKeys)
	id := f.text("id")
	if id == "" {
		return
	}
	r.place(f, "provider", id)
	r.Policy.Providers = append(r.Policy.Providers, fwpm.Provider{ID: fwpm.ProviderID(id), Name: f.text("name")})
}

func (r *reader) sublayer(n *yaml.Node) {
	f := r.mapping(n, &sublayerKeys)
	id := f.text("id")
	if id == "" {
		return
	}
	r.place(f, "sublayer", id)
	r.Policy.Sublayers = append(r.Policy.Sublayers, fwpm.Sublayer{ID: fwpm.SublayerID(id), Name: f.text("name"),
		Provider: fwpm.ProviderID(f.text("provider")), Weight: uint16(f.number("weight"))})
}

func (r *reader) proxy(n *yaml.Node) {
	f := r.mapping(n, &proxyKeys)
	px := Proxy{ID: f.text("id"), Kind: ProxyKind(f.text("kind")), Listen: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)}
	r.place(f, "proxy", px.ID)
	if s := f.text("listen"); s != "" {
		px.Listen = netip.MustParseAddrPort(s) // It has the form.
	}
	r.Proxies = append(r.Proxies, px)
}

func (r *reader) callout(n *yaml.Node) {
	f := r.mapping(n, &calloutKeys)
	c := Callout{ID: fwpm.CalloutID(f.text("id")), Wasm: f.text("wasm"), GoPackage: f.text("go"), ContinueOnFailure: f.text("on_failure") == "continue"}
	if (f.keys["wasm"] == nil) == (f.keys["go"] == nil) {
		r.fail(at(n), "", "a callout has either wasm (a module's file) or go (a source folder)")
	}
	if cfg := f.vals["config"]; cfg != nil {
		c.config = r.config(cfg)
	}
	if c.ID == "" {
		return
	}
	r.place(f, "callout", string(c.ID))
	r.Callouts = append(r.Callouts, c)
	r.Policy.Callouts = append(r.Policy.Callouts, fwpm.Callout{ID: c.ID, Name: f.text("name"), Provider: fwpm.ProviderID(f.text("provider"))})
}
