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

	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/policyfile"
)

// loadCallouts loads every module that the policy names and registers it.
func (w *world) loadCallouts(ctx context.Context, dir string, proxies map[string]netip.AddrPort, t *tracer) error {
	if len(w.file.Callouts) == 0 {
		return nil
	}
	cache, _ := os.UserCacheDir() // Without one, modules are compiled each time.
	if cache != "" {
		cache = filepath.Join(cache, "calloutd", "wasm")
	}
	rt, err := guest.NewRuntime(ctx, guest.Options{CacheDir: cache})
	if err != nil {
		return err
	}
	w.closers = append(w.closers, func() { rt.Close(context.WithoutCancel(ctx)) })
	var errs []error
	for _, c := range w.file.Callouts {
		if err := w.loadCallout(ctx, rt, dir, c, proxies, t); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (w *world) loadCallout(ctx context.Context, rt *guest.Runtime, dir string, c policyfile.Callout, proxies map[string]netip.AddrPort, t *tracer) error {
	bad := func(key string, err error) error { return w.file.At("callout", string(c.ID), key, err) }
	config, err := c.ConfigJSON(proxies, w.pid)
	if err != nil {
		return bad("config", err)
	}
	key, source := "wasm", readModule
	if c.GoPackage != "" {
		key, source = "go", buildModule
	}
	wasm, err := source(ctx, under(dir, c.Wasm+c.GoPackage))
	if err != nil {
		return bad(key, err)
	}
	opts := guest.ModuleOptions{Config: config, Logf: t.logf, OnEvent: t.callout}
	if c.ContinueOnFailure {
		opts.OnFailure = guest.FailContinue
	}
	m, err := rt.Load(ctx, string(c.ID), wasm, opts)
	if err != nil {
		return bad(key, err)
	}
	// Before the runtime: a spare instance may still be starting.
	w.closers = append(w.closers, func() { m.Close(context.WithoutCancel(ctx)) })
	handle, unregister, err := w.engine.RegisterCallout(c.ID, m)
	if err != nil {
		return bad("id", err)
	}
	w.handles[c.ID] = handle
	// Refused while the callout is busy: then the engine goes with it.
	w.closers = append(w.closers, func() { _ = unregister() })
	return nil
}

func under(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
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

// buildModule builds the Go source in a folder, with the flags that give the
// same module everywhere.
func buildModule(ctx context.Context, folder string) ([]byte, error) {
	if info, err := os.Stat(folder); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("%s is not a folder with Go source", folder)
	}
	tmp, err := os.MkdirTemp("", "calloutd-build-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	out := filepath.Join(tmp, "callout.wasm")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-buildmode=c-shared", "-o", out, ".")
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
