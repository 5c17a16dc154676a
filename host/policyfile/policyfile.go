// Package policyfile turns a YAML policy into a fwpm.Policy, with the place of
// every mistake.
package policyfile

import (
	"net/netip"
	"os"

	"github.com/calloutd/calloutd/host/fwpm"
)

// A File is a policy as it was written. It is not modified after Parse.
type File struct {
	Policy   fwpm.Policy
	Callouts []Callout
	Proxies  []Proxy

	name   string
	places map[object]place
}

// A Callout is where a callout's code is and how it is configured. Either Wasm
// or GoPackage is set; both are relative to the policy file's folder.
type Callout struct {
	ID              fwpm.CalloutID
	Wasm, GoPackage string
	// ContinueOnFailure leaves the decision to the other filters when the
	// callout fails. Without it a failure blocks.
	ContinueOnFailure bool

	config any
}

// A ProxyKind is one of the built-in local proxies.
type ProxyKind string

// The built-in proxies.
const (
	ProxyInspect ProxyKind = "inspect" // answers with what it learned about the connection
	ProxyForward ProxyKind = "forward" // carries the connection to where it was going
)

// A Proxy is a built-in proxy that the policy starts.
type Proxy struct {
	ID     string
	Kind   ProxyKind
	Listen netip.AddrPort // port zero lets the system choose
}

// Load reads a file. The error is Errors, or that of reading it.
func Load(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	src, err := readAll(f)
	if err != nil {
		return nil, err
	}
	return Parse(path, src)
}

// Parse reads a policy and checks all of it; name is how errors call it. The
// error is Errors.
func Parse(name string, src []byte) (*File, error) {
	r := &reader{
		File:     &File{name: name, places: map[object]place{}},
		problems: problems{file: name},
		declared: map[declaration]bool{},
		names:    map[string][]string{},
	}
	for _, builtin := range []fwpm.SublayerID{fwpm.SublayerUniversal, fwpm.SublayerInspection} {
		r.declare("sublayer", string(builtin))
	}
	root := r.document(src)
	if root == nil {
		return nil, r.sorted()
	}
	r.root(root)
	r.compile()
	if len(r.list) > 0 {
		return nil, r.sorted()
	}
	return r.File, nil
}

// A reader reads one policy.
type reader struct {
	*File
	problems
	declared map[declaration]bool
	names    map[string][]string // that are declared, by kind of object
	drafts   []draft
}
