package policytest

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v4"
)

// table reads many cases of one line: the columns are keys of a connection and of
// what is expected, and an empty cell is a key that is not there.
func (r *reader) table(n *yaml.Node, base Step) {
	vs := r.mapping(n, "a table", []string{"name", "with", "defaults", "columns", "rows"})
	if vs == nil {
		return
	}
	defer r.beside(vs)()
	for _, key := range []string{"name", "columns", "rows"} {
		if _, ok := get(vs, key); !ok {
			r.fail(n, "", "%s is missing", key)
			return
		}
	}
	if v, ok := get(vs, "defaults"); ok {
		r.defaults(v, &base)
	}
	name, _ := get(vs, "name")
	title, _ := r.text(name)
	columnsValue, _ := get(vs, "columns")
	columns, ok := r.columns(columnsValue)
	rows, _ := get(vs, "rows")
	if !ok {
		return
	}
	if rows.Kind == yaml.SequenceNode && len(rows.Content) == 0 {
		r.fail(rows.Node, "", "rows: the list is empty, so the table tests nothing")
	}
	for i, row := range r.list(rows) {
		r.row(row, fmt.Sprintf("%s/%d", title, i+1), columns, base)
	}
}

func (r *reader) columns(v value) (columns []*yaml.Node, ok bool) {
	known := append(alone(), names(expectationKeys)...)
	columns, ok = r.list(v), true
	for i, c := range columns {
		same := func(o *yaml.Node) bool { return o.Value == c.Value }
		switch {
		case !slices.Contains(known, c.Value):
			r.bad(value{"columns", c}, "a key of a connection or of expect", known...)
			ok = false
		case slices.ContainsFunc(columns[:i], same):
			r.fail(c, "", "columns: %q stands twice", c.Value)
			ok = false
		}
	}
	return columns, ok && v.Kind == yaml.SequenceNode
}

func (r *reader) row(n *yaml.Node, name string, columns []*yaml.Node, base Step) {
	if n.Kind != yaml.SequenceNode || len(n.Content) != len(columns) {
		found := describe(n)
		if n.Kind == yaml.SequenceNode {
			found = fmt.Sprintf("a list of %d", len(n.Content))
		}
		r.fail(n, "", "expected a row of %d cells, one for each column, found %s", len(columns), found)
		return
	}
	s := base
	s.Place = place(n)
	for i, cell := range n.Content {
		if cell.Tag == "!!null" {
			continue
		}
		v := value{columns[i].Value, cell}
		k := find(connectionKeys, v.key)
		if k == nil {
			k = find(expectationKeys, v.key)
		}
		k.read(r, v, &s)
	}
	r.complete(n, nil, &s)
	r.Cases = append(r.Cases, Case{Name: name, Place: s.Place, Steps: []Step{s}, With: r.with})
}
