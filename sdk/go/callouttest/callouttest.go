// Package callouttest tests policies in Go tests: a policy file, or filters in code
// with their callouts, and what becomes of connections that are described. Nothing
// is connected, so it works on every system. A failure has the way through every
// layer, filter and callout.
package callouttest

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policyrun"
	"github.com/calloutd/calloutd/host/policytest"
	"github.com/calloutd/calloutd/host/policytrace"
	"github.com/calloutd/calloutd/host/redirect"
)

// A Policy decides until the end of the test that opened it. It is safe for parallel
// tests, which share the callouts' instances and stores.
type Policy struct {
	world *policytest.World
}

// Open opens a policy file with the callouts that it names: modules are loaded and
// Go packages built. A mistake in it ends the test. Proxies that would get a port
// from the system have one from 61001 on.
func Open(t testing.TB, path string) *Policy {
	t.Helper()
	p, err := policyrun.Describe(t.Context(), path, policyrun.Description{Options: policyrun.Options{CacheDir: cacheDir(), Logf: t.Logf}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return &Policy{policytrace.World(p)}
}

// New makes a policy of filters in code. The callouts that they name are given by
// ID: Go code, or a Wasm module.
func New(t testing.TB, p fwpm.Policy, callouts map[fwpm.CalloutID]fwps.Callout) *Policy {
	t.Helper()
	out := &policyrun.Policy{File: &policyfile.File{Policy: p}, Engine: host.New(host.Options{}), Handles: map[fwpm.CalloutID]redirect.Handle{}}
	for id, c := range callouts {
		handle, unregister, err := out.Engine.RegisterCallout(id, c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unregister() }) // Refused while it is busy: then it goes with the engine.
		out.Handles[id] = handle
	}
	if err := out.Engine.Update(func(live *fwpm.Policy) error { *live = *p.Clone(); return nil }); err != nil {
		t.Fatal(err)
	}
	return &Policy{policytrace.World(out)}
}

// Wasm loads a module, with its configuration in JSON, as a callout.
func Wasm(t testing.TB, name string, module, config []byte) fwps.Callout {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // It ends with the test's cleanup.
	rt, err := guest.NewRuntime(ctx, guest.Options{CacheDir: cacheDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rt.Close(ctx) })
	m, err := rt.Load(ctx, name, module, guest.ModuleOptions{Config: config, Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close(ctx) })
	return m
}

// cacheDir is where the command keeps compiled modules, too; empty: nowhere.
func cacheDir() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "calloutd", "wasm")
}
