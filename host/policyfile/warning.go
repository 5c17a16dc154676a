package policyfile

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Warnings are what the engine takes and hardly anybody means, in the order of their
// places: objects that nothing uses, and callouts that know a proxy where nothing can be
// redirected. Those of policies beside this one (Beside) are not among them.
func (f *File) Warnings() []Problem { return f.warnings }

// warn looks for them in a policy without mistakes.
func (r *reader) warn() {
	w := reader{File: r.File, names: r.names, problems: problems{file: r.name}}
	w.unused()
	w.redirectsNowhere()
	for _, p := range w.sorted() {
		p.Warning = true
		r.warnings = append(r.warnings, p)
	}
}

// unused finds what nothing of the file names.
func (r *reader) unused() {
	used := map[object]bool{}
	use := func(kind string, ids ...string) {
		for _, id := range ids {
			used[object{kind, id, ""}] = true
		}
	}
	for i := range r.Policy.Filters {
		f := &r.Policy.Filters[i]
		use("callout", string(f.Callout))
		use("sublayer", string(f.Sublayer))
		use("provider context", string(f.ProviderContext))
	}
	for _, c := range r.Callouts {
		use("set", c.setIDs...)
		use("table", c.tableIDs...)
		use("proxy", r.proxiesIn(c)...)
	}
	for _, px := range r.Proxies {
		if px.Kind == ProxyDNS && px.Listen.Port() != 0 { // Programs may ask it by themselves.
			use("proxy", px.ID)
		}
	}
	for _, o := range []struct{ kind, by string }{
		{"callout", "no filter asks it"},
		{"proxy", "no callout's configuration has its address, ${proxy:ID}"},
		{"set", "no callout lists it"}, {"table", "no callout lists it"},
		{"sublayer", "no filter is in it"}, {"provider context", "no filter has it"},
	} {
		for _, id := range r.names[o.kind] {
			at, ok := r.places[object{o.kind, id, "id"}] // The built-in sublayers have none.
			if ok && !used[object{o.kind, id, ""}] {
				r.fail(at, "", "%s %q is not used: %s", o.kind, id, strings.ReplaceAll(o.by, "ID", id))
			}
		}
	}
}

// redirectsNowhere finds callouts that know a proxy, or stand for a redirector, and are
// only asked at layers without a request to change. One that is asked at ALE_CONNECT_REDIRECT
// too may well answer something else elsewhere.
func (r *reader) redirectsNowhere() {
	for _, c := range r.Callouts {
		proxies := r.proxiesIn(c)
		if len(proxies) == 0 && c.Model != ModelRedirector {
			continue
		}
		var asked []object
		redirects := false
		for i := range r.Policy.Filters {
			if f := &r.Policy.Filters[i]; f.Callout == c.ID {
				asked = append(asked, object{"filter", fmt.Sprint(f.ID), "layer"})
				redirects = redirects || f.Layer.IsConnectRedirect()
			}
		}
		what := "stands for a redirector"
		if len(proxies) > 0 {
			what = "knows the proxy " + strings.Join(proxies, ", ")
		}
		for _, o := range asked {
			if !redirects { // The halves of a filter for both families are one warning.
				r.fail(r.places[o], "", "callout %q %s, and no filter asks it at ALE_CONNECT_REDIRECT: elsewhere there is no connection to send to it (CH-02)", c.ID, what)
			}
		}
	}
}

// proxiesIn are the proxies whose address a callout's configuration has, by name or as it is.
func (r *reader) proxiesIn(c Callout) (ids []string) {
	for _, px := range r.Proxies {
		has := func(s string) bool {
			return strings.Contains(s, nameOf("proxy", px.ID)) || px.where().Port() != 0 && strings.Contains(s, px.where().String())
		}
		if mentions(c.config, has) {
			ids = append(ids, px.ID)
		}
	}
	return ids
}

// mentions reports whether a text of a configuration is such.
func mentions(v any, such func(string) bool) bool {
	is := func(v any) bool { return mentions(v, such) }
	switch v := v.(type) {
	case map[string]any:
		return slices.ContainsFunc(slices.Collect(maps.Values(v)), is) // Nothing is replaced in keys.
	case []any:
		return slices.ContainsFunc(v, is)
	case string:
		return such(v)
	}
	return false
}
