package policyfile

import (
	"fmt"

	"go.yaml.in/yaml/v4"

	"github.com/calloutd/calloutd/host/fwpm"
)

// Document reads a YAML document that belongs to a policy under the same limits:
// one document, no anchors, aliases and tags. Messages call it noun and say that
// it has keys. The error is Errors.
func Document(name string, src []byte, noun, keys string) (*yaml.Node, error) {
	r := &reader{problems: problems{file: name}, noun: noun, keys: keys}
	root := r.document(src)
	if len(r.list) > 0 {
		return nil, r.sorted()
	}
	return root, nil
}

// Nearest is the known word most like s, empty if none is.
func Nearest(s string, words []string) string { return nearest(s, words) }

// ConditionPlace is where a condition's value stands, as file:line:column; empty
// for one of another policy.
func (f *File) ConditionPlace(id fwpm.FilterID, condition int) string {
	o := object{"filter", fmt.Sprint(id), fmt.Sprintf("conditions[%d].value", condition)}
	p, ok := f.places[o]
	if !ok {
		return ""
	}
	return fmt.Sprintf("%s:%d:%d", ShownPath(f.fileOf(o)), p.line, p.column)
}
