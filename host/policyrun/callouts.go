package policyrun

import (
	"context"
	"errors"
	"net/netip"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policymodel"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/sdk/abi"
)

// A loader loads the modules that a policy names.
type loader struct {
	*Policy
	runtimes map[uint32]*guest.Runtime // by the limit of memory, in pages
}

// loadCallouts loads every module that the policy names and registers it.
func (p *Policy) loadCallouts(ctx context.Context) error {
	l := loader{Policy: p, runtimes: map[uint32]*guest.Runtime{}}
	var errs []error
	for _, c := range p.File.Callouts {
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
	ctx = context.WithoutCancel(ctx) // It outlives the loading.
	rt, err := guest.NewRuntime(ctx, guest.Options{CacheDir: l.opts.CacheDir, CacheDirSize: l.opts.CacheDirSize, Logf: l.opts.Logf, CompileApart: l.opts.CompileApart, MemoryLimitPages: pages})
	if err != nil {
		return nil, err
	}
	l.runtimes[pages] = rt
	l.closers = append(l.closers, func() { rt.Close(ctx) })
	return rt, nil
}

func (l *loader) load(ctx context.Context, c policyfile.Callout) error {
	bad := func(key string, err error) error { return l.File.At("callout", string(c.ID), key, err) }
	config, err := c.ConfigJSON(l.Proxies, l.ProcessID)
	if err != nil {
		return bad("config", err)
	}
	if c.Model != "" {
		return l.model(c, config)
	}
	key := "wasm"
	if c.GoPackage != "" {
		key = "go"
	}
	options := l.options(c, config)
	wasm, err := l.opts.Module(ctx, l.dir(), c, &options)
	if err != nil {
		return bad(key, err)
	}
	rt, err := l.runtime(ctx, c.Limits.MemoryMiB)
	if err != nil {
		return bad("limits", err)
	}
	m, err := rt.Load(ctx, string(c.ID), wasm, options)
	switch {
	case errors.Is(err, guest.ErrConfig):
		return bad("config", err)
	case err != nil:
		return bad(key, err)
	}
	// Before the runtime: a spare instance may still be starting.
	l.closers = append(l.closers, func() { m.Close(context.WithoutCancel(ctx)) })
	handle, unregister, err := l.Engine.RegisterCallout(c.ID, m)
	if err != nil {
		return bad("id", err)
	}
	l.Modules[c.ID], l.made[c.ID] = m, made{wasm, config}
	l.registered(c.ID, handle, unregister)
	return nil
}

func (l *loader) registered(id fwpm.CalloutID, handle redirect.Handle, unregister func() error) {
	l.Handles[id] = handle
	// Refused while the callout is busy: then the engine goes with it.
	l.closers = append(l.closers, func() { _ = unregister() })
	l.leave = append(l.leave, unregister)
}

// model registers what stands for another product's callout.
func (l *loader) model(c policyfile.Callout, config []byte) error {
	m, err := policymodel.Callout(c.Model, config)
	if err != nil {
		return l.File.At("callout", string(c.ID), "config", err)
	}
	handle, unregister, err := l.Engine.RegisterCallout(c.ID, m)
	if err != nil {
		return l.File.At("callout", string(c.ID), "id", err)
	}
	l.registered(c.ID, handle, unregister)
	return nil
}

// errModel is why a model is never live.
var errModel = errors.New("a model of another product is for sim, why, test, diff and replay: nothing is enforced with it")

// modelled finds the models in a policy that is to be enforced.
func modelled(f *policyfile.File) error {
	var errs []error
	for _, c := range f.Callouts {
		if c.Model != "" {
			errs = append(errs, f.At("callout", string(c.ID), "model", errModel))
		}
	}
	for _, px := range f.Proxies {
		if px.ForgetsRecords {
			errs = append(errs, f.At("proxy", px.ID, "forgets_records", errModel))
		}
	}
	return errors.Join(errs...)
}

func (l *loader) options(c policyfile.Callout, config []byte) guest.ModuleOptions {
	o := guest.ModuleOptions{Config: config, MaxFailures: c.MaxFailures, Withhold: ^c.Capabilities, Sets: c.Sets,
		Slots: c.Limits.Slots, Spares: c.Limits.Spares, FuelSlices: c.Limits.FuelSlices, InitFuelSlices: c.Limits.StartFuelSlices,
		Logf: l.opts.Logf, OnEvent: l.opts.OnCallout, Journals: l.opts.Journals, TriesOut: l.opts.triesOut}
	if c.ContinueOnFailure {
		o.OnFailure = guest.FailContinue
	}
	if l.learns() {
		o.Withhold &^= abi.CapNames
		o.Names = func(in *fwps.Incoming, a netip.Addr, buf []byte) []byte { return l.names.Append(in.Client(), a, buf) }
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
