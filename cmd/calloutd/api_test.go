package main

import (
	"flag"
	"fmt"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/tools/go/packages"
)

var updateAPI = flag.Bool("update-api", false, "write testdata/api as the packages are now")

// stable are the packages that others import: a change of what they export is
// seen in the review, and one that takes something away belongs into the notes
// of a release.
var stable = []string{"host", "host/ale", "host/arbitrate", "host/fwp", "host/fwpm", "host/fwps", "host/guest", "host/guest/meter",
	"host/policyfile", "host/policyrun", "host/policytrace", "host/redirect", "host/redirect/memstore", "host/redirect/arenastore", "host/redirect/boltstore", "host/enforce", "host/enforce/seccomp",
	"host/enforce/cgroupbpf", "wsk", "wsk/localproxy", "wsk/ntstatus", "wsk/remote", "wsk/winsock", "wsk/wsknet", "sdk/go/callout", "sdk/go/callouttest"}

func TestAPI(t *testing.T) {
	var paths []string
	for _, p := range stable {
		paths = append(paths, module+p)
	}
	cfg := &packages.Config{Mode: packages.LoadTypes, // What the compiler exported, which is read much sooner than the source.
		Env: append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0"), BuildFlags: []string{"-trimpath"}} // CI has compiled it so.
	pkgs, err := packages.Load(cfg, paths...)
	require.NoError(t, err)
	require.Len(t, pkgs, len(stable))
	for _, p := range pkgs {
		require.Empty(t, p.Errors)
		name := strings.TrimPrefix(p.PkgPath, module)
		file := filepath.Join("testdata", "api", strings.ReplaceAll(name, "/", "_")+".txt")
		now := api(p.Types)
		if *updateAPI {
			require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
			require.NoError(t, os.WriteFile(file, []byte(strings.Join(now, "\n")+"\n"), 0o644))
			continue
		}
		src, err := os.ReadFile(file)
		require.NoError(t, err)
		was := strings.Split(strings.TrimSuffix(string(src), "\n"), "\n")
		for _, gone := range missing(was, now) {
			t.Errorf("incompatible: %s no longer has: %s\nthat breaks those who use it; if it must be, -update-api and a line in the release's notes", name, gone)
		}
		for _, added := range missing(now, was) {
			t.Errorf("compatible, unless something above went for it: %s now has: %s\nrun: go test ./cmd/calloutd -run TestAPI -update-api", name, added)
		}
	}
}

func missing(of, in []string) (out []string) {
	for _, line := range of {
		if _, ok := slices.BinarySearch(in, line); !ok {
			out = append(out, line)
		}
	}
	return out
}

// api is what a package exports, a line each, sorted.
func api(p *types.Package) []string {
	lines := map[string]bool{}
	qualify := func(other *types.Package) string {
		if other == p {
			return ""
		}
		return other.Name()
	}
	for _, name := range p.Scope().Names() {
		o := p.Scope().Lookup(name)
		if !o.Exported() {
			continue
		}
		switch o := o.(type) {
		case *types.Const:
			lines[fmt.Sprintf("const %s %s = %s", name, types.TypeString(o.Type(), qualify), o.Val().ExactString())] = true
		case *types.TypeName:
			typeAPI(lines, o, qualify)
		default:
			lines[types.ObjectString(o, qualify)] = true
		}
	}
	return slices.Sorted(maps.Keys(lines))
}

func typeAPI(lines map[string]bool, o *types.TypeName, qualify types.Qualifier) {
	switch u := o.Type().Underlying().(type) {
	case *types.Struct:
		lines["type "+o.Name()+" struct"] = true
		for f := range u.Fields() {
			if f.Exported() {
				lines[fmt.Sprintf("field %s.%s %s", o.Name(), f.Name(), types.TypeString(f.Type(), qualify))] = true
			}
		}
	default:
		lines[fmt.Sprintf("type %s %s", o.Name(), types.TypeString(u, qualify))] = true
	}
	set := types.NewMethodSet(types.NewPointer(o.Type()))
	for m := range set.Methods() {
		if f := m.Obj(); f.Exported() && !types.IsInterface(o.Type()) {
			lines[fmt.Sprintf("method (%s) %s%s", o.Name(), f.Name(), strings.TrimPrefix(types.TypeString(f.Type(), qualify), "func"))] = true
		}
	}
}
