package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/tools/txtar"

	"github.com/calloutd/calloutd/host/policyfile"
)

// An archive is a policy and its cases in one text file (txtar). Their lines are
// those of the archive.
type archive struct {
	policy *policyfile.File // nil: it is in a file of its own
	cases  []byte
}

// The names of the parts.
const (
	partPolicy = "policy.yaml"
	partCases  = "policy_test.yaml"
)

func isArchive(path string) bool { return strings.HasSuffix(path, "_test.txtar") }

// readArchive takes an archive apart. A policy in it names no lists in files.
func readArchive(path string, src []byte) (*archive, error) {
	a, out := txtar.Parse(src), new(archive)
	for _, f := range a.Files {
		if !slices.Contains([]string{partPolicy, partCases}, f.Name) {
			return nil, fmt.Errorf("%s: part %q: expected %s and %s", path, f.Name, partPolicy, partCases)
		}
		padded := append(bytes.Repeat([]byte("\n"), lineOf(src, f.Name)), f.Data...)
		if f.Name == partCases {
			out.cases = padded
			continue
		}
		var err error
		if out.policy, err = policyfile.Parse(path, padded); err != nil {
			return nil, err
		}
	}
	if out.cases == nil {
		return nil, fmt.Errorf("%s: there is no part -- %s --", path, partCases)
	}
	return out, nil
}

// lineOf is how many lines stand before a part.
func lineOf(src []byte, name string) (n int) {
	for line := range bytes.Lines(src) {
		n++
		if strings.TrimSpace(string(line)) == "-- "+name+" --" {
			return n
		}
	}
	return 0
}
