package policyfile

import (
	"net/netip"
	"slices"

	"go.yaml.in/yaml/v4"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/sdk/abi"
)

func (r *reader) callout(n *yaml.Node) {
	f, id := r.object(n, &calloutKeys, "callout")
	c := Callout{ID: fwpm.CalloutID(id), Wasm: f.text("wasm"), GoPackage: f.text("go"), Model: Model(f.text("model")), ContinueOnFailure: f.text("on_failure") == "continue",
		MaxFailures: f.maxFailures(), Limits: r.limits(f), setIDs: f.words("sets"), tableIDs: f.words("tables")}
	if f.has("wasm", "go", "model") != 1 {
		r.fail(at(n), "", "a callout has either wasm (a module's file), go (a source folder) or model (of another product's callout)")
	}
	c.Sets, c.Tables = pick(r.sets, c.setIDs), pick(r.tables, c.tableIDs)
	c.Capabilities = f.capabilities(c.Sets, c.Tables)
	r.replaced = r.replaces(f.written("sets"), f.written("tables"))
	if cfg := f.vals["config"]; cfg != nil {
		c.config = r.config(cfg)
	}
	if id == "" {
		return
	}
	r.Callouts = append(r.Callouts, c)
	o := fwpm.Callout{ID: c.ID, Name: f.text("name"), Provider: r.ownerOf(f)}
	o.ApplicableLayer, _ = fwpm.ParseLayer(f.text("applicable_layer"))
	r.Policy.Callouts = append(r.Policy.Callouts, o)
}

// has is how many of some keys there are.
func (f fields) has(keys ...string) (n int) {
	for _, key := range keys {
		if f.keys[key] != nil {
			n++
		}
	}
	return n
}

// written are the items of a list as they stand there: a wrong one is one
// mistake, and not another one where the configuration names it.
func (f fields) written(key string) []string {
	var words []string
	if n := f.raw[key]; n != nil {
		for _, item := range append(n.Content, n) {
			if item.Value != "" && !slices.Contains(words, item.Value) {
				words = append(words, item.Value)
			}
		}
	}
	return words
}

// pick lists the values of names.
func pick[V any](all map[string]V, names []string) []V {
	var some []V
	for _, name := range names {
		some = append(some, all[name])
	}
	return some
}

// maxFailures is zero for the default, so never is negative.
func (f fields) maxFailures() int {
	if n := f.number("max_failures"); n > 0 || f.vals["max_failures"] == nil {
		return int(n)
	}
	return -1
}

func (f fields) capabilities(sets [][]netip.Prefix, tables [][]Row) uint32 {
	caps := uint32(grantable)
	if f.keys["capabilities"] != nil {
		caps = 0
	}
	for _, name := range f.words("capabilities") {
		caps |= parseCapability(name)
	}
	if len(sets) > 0 {
		caps |= abi.CapSets
	}
	if len(tables) > 0 {
		caps |= abi.CapTables
	}
	return caps
}

func (r *reader) limits(f fields) Limits {
	l := r.inner(f, "limits", &limitKeys)
	return Limits{MemoryMiB: uint32(l.number("memory_mib")), FuelSlices: int(l.number("fuel_slices")), StartFuelSlices: int(l.number("start_fuel_slices")),
		Slots: int(l.number("slots")), Spares: int(l.number("spares"))}
}
