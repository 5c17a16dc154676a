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
// those of the archive. A file of cases alone is one with nothing around them.
type archive struct {
	policy *policyfile.File // nil: it is in a file of its own
	cases  []byte

	src     []byte
	at, end int // where the cases stand in src; both zero: everywhere
	padding int // lines before them
}

// The names of the parts.
const (
	partPolicy = "policy.yaml"
	partCases  = "policy_test.yaml"
)

func isArchive(path string) bool { return strings.HasSuffix(path, "_test.txtar") }

// readArchive takes an archive apart. A policy in it names no lists in files.
func readArchive(path string, src []byte) (*archive, error) {
	a, out := txtar.Parse(src), &archive{src: src}
	for i, f := range a.Files {
		if !slices.Contains([]string{partPolicy, partCases}, f.Name) {
			return nil, fmt.Errorf("%s: part %q: expected %s and %s", path, f.Name, partPolicy, partCases)
		}
		if slices.ContainsFunc(a.Files[:i], func(g txtar.File) bool { return g.Name == f.Name }) {
			return nil, fmt.Errorf("%s: part %q stands twice", path, f.Name)
		}
		line, at := partAt(src, f.Name)
		padded := append(bytes.Repeat([]byte("\n"), line), f.Data...)
		if f.Name == partCases {
			out.cases, out.padding, out.at, out.end = padded, line, at, min(len(src), at+len(f.Data))
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

// partAt is how many lines stand before a part, and where it begins.
func partAt(src []byte, name string) (lines, at int) {
	for line := range bytes.Lines(src) {
		lines++
		at += len(line)
		line = bytes.TrimRight(line, "\r\n")
		rest, begins := bytes.CutPrefix(line, []byte("-- "))
		if rest, ends := bytes.CutSuffix(rest, []byte(" --")); begins && ends && string(bytes.TrimSpace(rest)) == name {
			return lines, at
		}
	}
	return 0, 0
}

// with is the file with other cases, and everything else as it was.
func (a *archive) with(cases []byte) []byte {
	if a.end == 0 {
		return cases
	}
	cases = cases[a.padding:]
	if !bytes.HasSuffix(a.src[:a.end], []byte("\n")) { // Reading it has added one.
		cases = bytes.TrimSuffix(cases, []byte("\n"))
	}
	return slices.Concat(a.src[:a.at], cases, a.src[a.end:])
}
