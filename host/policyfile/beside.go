package policyfile

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/host/fwpm"
)

// Beside is a policy with the policies of other providers in one engine: each keeps
// its providers, sublayers, callouts and proxies. The filters of the first keep their
// numbers, those of the others get the next ones, in their order. What names no
// provider in the others belongs to one that is called as its file. Two objects of
// one name are a mistake; the error is Errors. The files are not modified.
func Beside(file *File, others ...*File) (*File, error) {
	b := &besides{File: file.copy(), problems: problems{file: file.name}}
	for _, o := range others {
		b.add(o.owned(b.free(nameFor(o.name))))
	}
	if len(b.list) > 0 {
		return nil, b.sorted()
	}
	return b.File, nil
}

// A besides is a file to which others are added.
type besides struct {
	*File
	problems
}

func (f *File) copy() *File {
	c := *f
	c.Policy = *f.Policy.Clone()
	c.Callouts, c.Proxies, c.Invariants = slices.Clone(f.Callouts), slices.Clone(f.Proxies), slices.Clone(f.Invariants)
	c.places, c.files = map[object]place{}, map[object]string{}
	for o, p := range f.places {
		c.places[o] = p
		if of := f.files[o]; of != "" {
			c.files[o] = of
		}
	}
	return &c
}

// free is a name that no provider has.
func (b *besides) free(name string) fwpm.ProviderID {
	taken := func(id fwpm.ProviderID) bool {
		return slices.ContainsFunc(b.Policy.Providers, func(p fwpm.Provider) bool { return p.ID == id })
	}
	id := fwpm.ProviderID(name)
	for n := 2; taken(id); n++ {
		id = fwpm.ProviderID(fmt.Sprint(name, "-", n))
	}
	return id
}

// owned is the file with a provider for what has none.
func (f *File) owned(id fwpm.ProviderID) *File {
	c := f.copy()
	p := &c.Policy
	mine := func(of *fwpm.ProviderID) {
		if *of == "" {
			*of = id
			if !slices.ContainsFunc(p.Providers, func(p fwpm.Provider) bool { return p.ID == id }) {
				p.Providers = append(p.Providers, fwpm.Provider{ID: id})
			}
		}
	}
	for i := range p.Sublayers {
		mine(&p.Sublayers[i].Provider)
	}
	for i := range p.Callouts {
		mine(&p.Callouts[i].Provider)
	}
	for i := range p.Filters {
		mine(&p.Filters[i].Provider)
	}
	return c
}

// nameFor makes a name for an object of the name of a file, of its folder where files
// are called policy.yaml.
func nameFor(file string) string {
	base := filepath.Base(file)
	base = strings.TrimSuffix(base, filepath.Ext(base))
	if folder := filepath.Base(filepath.Dir(file)); base == "policy" && isIdentifier(folder) {
		base = folder
	}
	s := strings.Map(func(c rune) rune {
		if isIdentifier("a" + string(c)) {
			return c
		}
		return '-'
	}, base)
	if s = s[:min(len(s), 48)]; !isIdentifier(s) {
		return "other"
	}
	return s
}

func (b *besides) add(o *File) {
	b.clashes(o)
	p, q := &b.Policy, &o.Policy
	p.Providers, p.ProviderContexts = append(p.Providers, q.Providers...), append(p.ProviderContexts, q.ProviderContexts...)
	p.Sublayers, p.Callouts = append(p.Sublayers, q.Sublayers...), append(p.Callouts, q.Callouts...)
	for _, c := range o.Callouts {
		c.Wasm, c.GoPackage = b.near(o, c.Wasm), b.near(o, c.GoPackage)
		b.Callouts = append(b.Callouts, c)
	}
	for _, px := range o.Proxies {
		px.Credentials.File = b.near(o, px.Credentials.File)
		b.Proxies = append(b.Proxies, px)
	}
	b.Invariants = append(b.Invariants, o.Invariants...)
	number := b.filters(q.Filters)
	for at, place := range o.places {
		of := o.fileOf(at)
		if at.kind == "filter" {
			at.id = number[at.id]
		}
		b.places[at], b.files[at] = place, of
	}
}

// filters adds filters and says what became of their numbers.
func (b *besides) filters(fs []fwpm.Filter) map[string]string {
	next, number := fwpm.FilterID(0), map[string]string{}
	for i := range b.Policy.Filters {
		next = max(next, b.Policy.Filters[i].ID)
	}
	fs = slices.Clone(fs)
	slices.SortFunc(fs, func(x, y fwpm.Filter) int { return cmp.Compare(x.ID, y.ID) }) // AMB-37
	for _, f := range fs {
		next++
		number[fmt.Sprint(f.ID)], f.ID = strconv.FormatUint(uint64(next), 10), next
		b.Policy.Filters = append(b.Policy.Filters, f)
	}
	return number
}

// near is a path as the first file would write it.
func (b *besides) near(o *File, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	there := Under(filepath.Dir(o.name), path)
	if rel, err := filepath.Rel(filepath.Dir(b.name), there); err == nil {
		return rel
	}
	if abs, err := filepath.Abs(there); err == nil {
		return abs
	}
	return there
}

// clashes finds what both have. Names of sets and tables are of one file only.
func (b *besides) clashes(o *File) {
	both(b, o, "provider", b.Policy.Providers, o.Policy.Providers, func(x fwpm.Provider) string { return string(x.ID) })
	both(b, o, "provider context", b.Policy.ProviderContexts, o.Policy.ProviderContexts, func(x fwpm.ProviderContext) string { return string(x.ID) })
	both(b, o, "sublayer", b.Policy.Sublayers, o.Policy.Sublayers, func(x fwpm.Sublayer) string { return string(x.ID) })
	both(b, o, "callout", b.Callouts, o.Callouts, func(x Callout) string { return string(x.ID) })
	both(b, o, "proxy", b.Proxies, o.Proxies, func(x Proxy) string { return x.ID })
	for _, x := range o.Proxies {
		i := slices.IndexFunc(b.Proxies, func(y Proxy) bool { return y.where().Port() != 0 && y.where() == x.where() })
		if i >= 0 {
			b.clash(o, "proxy", x.ID, fmt.Sprintf("proxy %q is where proxy %q of %s is too, at %s", x.ID, b.Proxies[i].ID, b.fileOf(object{"proxy", b.Proxies[i].ID, ""}), x.where()))
		}
	}
}

// both finds objects of one name in two files.
func both[T any](b *besides, o *File, kind string, mine, theirs []T, id func(T) string) {
	for _, x := range theirs {
		if slices.ContainsFunc(mine, func(y T) bool { return id(x) == id(y) }) {
			at := object{kind, id(x), ""}
			where := b.fileOf(at)
			if p, ok := b.places[at]; ok {
				where += ":" + strconv.Itoa(p.line)
			}
			b.clash(o, kind, id(x), fmt.Sprintf("%s %q stands in %s too: of two policies beside each other, one has to call it something else", kind, id(x), where))
		}
	}
}

func (b *besides) clash(o *File, kind, id, what string) {
	at := object{kind, id, ""}
	p, ok := o.places[at]
	if !ok {
		p = start
	}
	b.failIn(o.fileOf(at), p, "", "%s", what)
}
