package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/sdk/abi"
	"github.com/calloutd/calloutd/sdk/project"
)

// A loader loads the modules that a policy names.
type loader struct {
	*world
	dir      string // of the policy
	cache    string // of compiled modules; empty: none
	proxies  map[string]netip.AddrPort
	t        *tracer
	runtimes map[uint32]*guest.Runtime // by the limit of memory, in pages
}

// loadCallouts loads every module that the policy names and registers it.
func (w *world) loadCallouts(ctx context.Context, dir string, proxies map[string]netip.AddrPort, t *tracer) error {
	l := loader{world: w, dir: dir, cache: cacheDir(), proxies: proxies, t: t, runtimes: map[uint32]*guest.Runtime{}}
	var errs []error
	for _, c := range w.file.Callouts {
		if err := l.load(ctx, c); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// runtime is the one whose instances have so much memory.
func (l *loader) runtime(ctx context.Context, mib uint32) (*guest.Runtime, error) {
	const pagesPerMiB = 16
	pages := mib * pagesPerMiB
	if rt := l.runtimes[pages]; rt != nil {
		return rt, nil
	}
	rt, err := guest.NewRuntime(ctx, guest.Options{CacheDir: l.cache, MemoryLimitPages: pages})
	if err != nil {
		return nil, err
	}
	l.runtimes[pages] = rt
	l.closers = append(l.closers, func() { rt.Close(context.WithoutCancel(ctx)) })
	return rt, nil
}

func (l *loader) load(ctx context.Context, c policyfile.Callout) error {
	bad := func(key string, err error) error { return l.file.At("callout", string(c.ID), key, err) }
	config, err := c.ConfigJSON(l.proxies, l.pid)
	if err != nil {
		return bad("config", err)
	}
	key, source := "wasm", readModule
	if c.GoPackage != "" {
		key, source = "go", buildModule
	}
	file := policyfile.Under(l.dir, c.Wasm+c.GoPackage)
	wasm, err := source(ctx, file)
	if err != nil {
		return bad(key, err)
	}
	options, m := l.options(c, config), &measured{callout: string(c.ID), module: file}
	if l.measures {
		if wasm, m.source, err = l.measure(ctx, c, wasm, &options); err != nil {
			return bad(key, err)
		}
		l.measured = append(l.measured, m)
	}
	rt, err := l.runtime(ctx, c.Limits.MemoryMiB)
	if err != nil {
		return bad("limits", err)
	}
	if m.guest, err = rt.Load(ctx, string(c.ID), wasm, options); err != nil {
		return bad(key, err)
	}
	// Before the runtime: a spare instance may still be starting.
	l.closers = append(l.closers, func() { m.guest.Close(context.WithoutCancel(ctx)) })
	handle, unregister, err := l.engine.RegisterCallout(c.ID, m.guest)
	if err != nil {
		return bad("id", err)
	}
	l.handles[c.ID], l.modules[c.ID] = handle, &loadedModule{m.guest, wasm, config}
	// Refused while the callout is busy: then the engine goes with it.
	l.closers = append(l.closers, func() { _ = unregister() })
	l.leave = append(l.leave, unregister)
	return nil
}

// A loadedModule is a callout's, with what it was made of.
type loadedModule struct {
	*guest.Module
	wasm, config []byte
}

// reload makes the same live again.
func (m *loadedModule) reload(ctx context.Context) error { return m.Reload(ctx, m.wasm, m.config) }

func (l *loader) options(c policyfile.Callout, config []byte) guest.ModuleOptions {
	o := guest.ModuleOptions{Config: config, MaxFailures: c.MaxFailures, Withhold: ^c.Capabilities, Sets: c.Sets,
		Slots: c.Limits.Slots, Spares: c.Limits.Spares, FuelSlices: c.Limits.FuelSlices, InitFuelSlices: c.Limits.StartFuelSlices,
		Logf: l.t.logf, OnEvent: l.t.callout, Journals: l.journals}
	if c.ContinueOnFailure {
		o.OnFailure = guest.FailContinue
	}
	if l.learns {
		o.Withhold &^= abi.CapNames
		o.Names = l.names.Append
	}
	for _, rows := range c.Tables {
		table := make([]guest.Row, len(rows))
		for i, row := range rows {
			table[i] = guest.Row(row)
		}
		o.Tables = append(o.Tables, table)
	}
	return o
}

func readModule(_ context.Context, path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	// One byte more, so that the loader sees that it is too long.
	_, err = b.ReadFrom(io.LimitReader(f, guest.MaxModuleSize+1))
	return b.Bytes(), err
}

// buildModule builds the Go source in a folder as a project would, but in the
// workspace it is in.
func buildModule(ctx context.Context, folder string) ([]byte, error) {
	if info, err := os.Stat(folder); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("%s is not a folder with Go source", folder)
	}
	return goBuild(ctx, folder)
}

// goBuild builds the package of a folder, with more flags.
func goBuild(ctx context.Context, folder string, flags ...string) ([]byte, error) {
	tmp, err := os.MkdirTemp("", "calloutd-build-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	out := filepath.Join(tmp, "callout.wasm")
	build := strings.NewReplacer("OUT", out)
	var args []string
	for _, word := range project.GoBuild {
		args = append(args, build.Replace(word))
	}
	args = slices.Insert(args, 2, flags...) // after go build
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	msg, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return nil, errors.New("go is not installed: install it, or build the module elsewhere and name it with wasm")
	case err != nil:
		return nil, fmt.Errorf("go build in %s: %w\n%s", folder, err, bytes.TrimSpace(msg))
	}
	return readModule(ctx, out)
}
