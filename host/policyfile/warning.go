package policyfile

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// Warnings are what the engine takes and hardly anybody means, in the order of their
// places: objects that nothing uses, lists with nothing in them, and callouts that know a proxy where nothing can be
// redirected. Those of policies beside this one (Beside) are not among them.
func (f *File) Warnings() []Problem { return f.warnings }

// A note is a warning for which the reader sees the reason.
type note struct {
	place
	text string
}

// warn looks for them in a policy without mistakes.
func (r *reader) warn() {
	w := reader{File: r.File, names: r.names, problems: problems{file: r.name}}
	w.unused()
	w.redirectsNowhere()
	w.namesNobodyHears()
	for _, n := range r.notes {
		w.fail(n.place, "", "%s", n.text)
	}
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

// namesNobodyHears finds callouts that send connections to a proxy of kind peek and are
// never asked about the proxy's own, which have the name that it learned: these are
// calloutd's, and their filters are about programs and users. Who runs calloutd is not
// known here.
func (r *reader) namesNobodyHears() {
	for _, c := range r.Callouts {
		var peek []string
		for _, px := range r.Proxies {
			if px.Kind == ProxyPeek && slices.Contains(r.proxiesIn(c), px.ID) {
				peek = append(peek, px.ID)
			}
		}
		asks := slices.DeleteFunc(slices.Clone(r.Policy.Filters), func(f fwpm.Filter) bool { return f.Callout != c.ID })
		if len(peek) == 0 || slices.ContainsFunc(asks, func(f fwpm.Filter) bool { return !ofSomebody(&f) }) {
			continue
		}
		unless := ""
		if slices.ContainsFunc(asks, func(f fwpm.Filter) bool { return !names(&f, fwpm.ConditionALEAppID) }) {
			unless = ", unless a user whom they name runs calloutd"
		}
		for i := range asks {
			at := r.places[object{"filter", fmt.Sprint(asks[i].ID), ""}]
			r.fail(at, "", "callout %q sends connections to the proxy %s, and no filter asks it about the proxy's own, which have the name%s: those are calloutd's, and FLAGS has IS_PROXY_CONNECTION", c.ID, strings.Join(peek, ", "), unless)
		}
	}
}

// ofSomebody reports whether a filter is about programs or users that it names.
func ofSomebody(f *fwpm.Filter) bool {
	return names(f, fwpm.ConditionALEAppID) || names(f, fwpm.ConditionALEUserID)
}

// names reports whether a filter says what a field is, and not only what it is not.
func names(f *fwpm.Filter, field fwpm.ConditionID) bool {
	return slices.ContainsFunc(f.Conditions, func(c fwpm.Condition) bool {
		return c.Field == field && c.Match != fwp.MatchNotEqual && c.Match != fwp.MatchNotPrefix && c.Value.Type != fwp.Empty
	})
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
