package policyfile

import (
	"encoding/base64"
	"slices"

	"go.yaml.in/yaml/v4"

	"github.com/calloutd/calloutd/host/fwpm"
)

// root reads the file. What others refer to comes first, wherever it stands.
func (r *reader) root(n *yaml.Node) {
	if k := casesIn(n); k != nil {
		r.fail(at(k), "", "this is a file of cases, which calloutd test runs: expected a policy")
		return
	}
	top := r.mapping(n, &fileKeys)
	if v := top.vals["provider"]; v != nil {
		r.provider(v)
		for _, p := range r.Policy.Providers { // None if its id is not right.
			r.owner = p.ID
		}
	}
	for _, section := range []struct {
		key  string
		read func(*yaml.Node)
	}{
		{"providers", r.provider}, {"provider_contexts", r.context}, {"sublayers", r.sublayer}, {"proxies", r.proxy},
		{"sets", r.set}, {"tables", r.table}, {"callouts", r.callout}, {"filters", r.filter},
		{"invariants", r.invariant},
	} {
		for _, n := range top.list(section.key) {
			section.read(n)
		}
	}
	r.number()
}

// casesIn is the key by which a document is seen to be cases of a policy (package
// policytest), nil if it is not.
func casesIn(n *yaml.Node) *yaml.Node {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		switch k, v := n.Content[i], n.Content[i+1]; k.Value {
		case "cases", "refusals":
			return k
		case "tables":
			hasColumns := func(t *yaml.Node) bool {
				return slices.ContainsFunc(t.Content, func(c *yaml.Node) bool { return c.Value == "columns" })
			}
			if slices.ContainsFunc(v.Content, hasColumns) {
				return k
			}
		}
	}
	return nil
}

func (r *reader) provider(n *yaml.Node) {
	if f, id := r.object(n, &providerKeys, "provider"); id != "" {
		r.Policy.Providers = append(r.Policy.Providers, fwpm.Provider{ID: fwpm.ProviderID(id), Name: f.text("name")})
	}
}

func (r *reader) context(n *yaml.Node) {
	f, id := r.object(n, &contextKeys, "provider context")
	data := []byte(f.text("data"))
	if v := f.vals["data"]; v != nil && v.Kind == yaml.MappingNode {
		data = r.bytes(r.mapping(v, &dataKeys).vals["base64"])
	}
	if id != "" {
		r.Policy.ProviderContexts = append(r.Policy.ProviderContexts, fwpm.ProviderContext{ID: fwpm.ProviderContextID(id), Name: f.text("name"),
			Provider: r.ownerOf(f), Data: data})
	}
}

func (r *reader) bytes(n *yaml.Node) []byte {
	if n == nil {
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(n.Value)
	if err != nil {
		r.fail(at(n), "", "base64: expected base64 such as AAEC, found %s", describe(n))
	}
	return b
}

func (r *reader) sublayer(n *yaml.Node) {
	if f, id := r.object(n, &sublayerKeys, "sublayer"); id != "" {
		r.Policy.Sublayers = append(r.Policy.Sublayers, fwpm.Sublayer{ID: fwpm.SublayerID(id), Name: f.text("name"),
			Provider: r.ownerOf(f), Weight: uint16(f.number("weight"))})
	}
}

// ownerOf is the provider of an object.
func (r *reader) ownerOf(f fields) fwpm.ProviderID {
	if f.keys["provider"] == nil {
		return r.owner
	}
	return fwpm.ProviderID(f.text("provider"))
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
