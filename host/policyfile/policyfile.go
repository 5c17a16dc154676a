// Package policyfile turns a YAML policy into a fwpm.Policy, with the place of
// every mistake.
package policyfile

import (
	"errors"
	"net/netip"
	"path/filepath"

	"github.com/calloutd/calloutd/host/fwpm"
)

// A File is a policy as it was written. It is not modified after Parse.
type File struct {
	Policy   fwpm.Policy
	Callouts []Callout
	Proxies  []Proxy
	// Invariants are what must be so of all connections.
	Invariants []Invariant

	name   string
	places map[object]place
	files  map[object]string // of the places in other files than this one
	owner  fwpm.ProviderID   // of what names no provider

	warnings []Problem
}

// A Callout is where a callout's code is and how it is configured. One of Wasm,
// GoPackage and Model is set; the first two are relative to the policy file's folder.
type Callout struct {
	ID              fwpm.CalloutID
	Wasm, GoPackage string
	Model           Model
	// ContinueOnFailure leaves the decision to the other filters when the
	// callout fails. Without it a failure blocks.
	ContinueOnFailure bool
	// MaxFailures is that of guest.ModuleOptions: zero is its default, negative
	// never puts the callout in quarantine.
	MaxFailures int
	// Capabilities are those that the guest may have (abi.Cap*).
	Capabilities uint32
	// Sets and Tables are what the guest asks by number.
	Sets   [][]netip.Prefix
	Tables [][]Row
	Limits Limits

	config           any
	setIDs, tableIDs []string
}

// A Model is what the callout of another product does.
type Model string

// The models of callouts. Package policymodel has what they do.
const (
	ModelRedirector Model = "redirector"
	ModelBlocker    Model = "blocker"
)

// A Row of a table: the number of a network.
type Row struct {
	Prefix netip.Prefix
	Value  int32
}

// Limits are what a callout may cost. Zero is the default of package guest.
type Limits struct {
	MemoryMiB                   uint32 // of one instance
	FuelSlices, StartFuelSlices int    // of a decision, and of each step of starting an instance
	Slots, Spares               int    // instances
}

// Load reads a file and the files that its sets and tables are in. The error is
// Errors, or that of reading the policy.
func Load(path string) (*File, error) { return LoadEach(path, func(string) {}) }

// LoadEach is Load for who wants to know which other files were read: opening
// hears of each, also of those that are not there.
func LoadEach(path string, opening func(path string)) (*File, error) {
	src, err := readFile(path, MaxSize)
	if err != nil {
		return nil, err
	}
	return read(path, src, func(path string) ([]byte, error) {
		opening(path)
		return readFile(path, MaxListSize)
	})
}

// Parse reads a policy and checks all of it; name is how errors call it. It
// opens no file: a set or a table that is in one is a mistake. The error is Errors.
func Parse(name string, src []byte) (*File, error) {
	return read(name, src, func(string) ([]byte, error) { return nil, errNoFiles })
}

var errNoFiles = errors.New("this policy is read without the files beside it")

// Under is where a file is that a policy in the folder dir names.
func Under(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

func read(name string, src []byte, open func(path string) ([]byte, error)) (*File, error) {
	r := &reader{
		open:     open,
		File:     &File{name: name, places: map[object]place{}},
		problems: problems{file: name},
		declared: map[declaration]bool{},
		reached:  map[netip.AddrPort]string{},
		names:    map[string][]string{},
		sets:     map[string][]netip.Prefix{},
		tables:   map[string][]Row{},
		noun:     "a policy",
		keys:     "version, callouts, filters",
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
	r.warn()
	return r.File, nil
}

// A reader reads one policy.
type reader struct {
	*File
	problems
	declared map[declaration]bool
	names    map[string][]string // that are declared, by kind of object
	drafts   []draft
	open     func(path string) ([]byte, error)
	sets     map[string][]netip.Prefix
	tables   map[string][]Row
	notes    []note
	reached  map[netip.AddrPort]string // the proxies that have an address
	replaced []string                  // what stands for something in the configuration that is read

	noun, keys string // what the file is and holds, for messages
}
