package policyrun

import (
	"context"
	"errors"

	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/policyfile"
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
	rt, err := guest.NewRuntime(ctx, guest.Options{CacheDir: l.opts.CacheDir, MemoryLimitPages: pages})
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
	if err != nil {
		return bad(key, err)
	}
	// Before the runtime: a spare instance may still be starting.
	l.closers = append(l.closers, func() { m.Close(context.WithoutCancel(ctx)) })
	handle, unregister, err := l.Engine.RegisterCallout(c.ID, m)
	if err != nil {
		return bad("id", err)
	}
	l.Handles[c.ID], l.Modules[c.ID], l.made[c.ID] = handle, m, made{wasm, config}
	// Refused while the callout is busy: then the engine goes with it.
	l.closers = append(l.closers, func() { _ = unregister() })
	l.leave = append(l.leave, unregister)
	return nil
}

func (l *loader) options(c policyfile.Callout, config []byte) guest.ModuleOptions {
	o := guest.ModuleOptions{Config: config, MaxFailures: c.MaxFailures, Withhold: ^c.Capabilities, Sets: c.Sets,
		Slots: c.Limits.Slots, Spares: c.Limits.Spares, FuelSlices: c.Limits.FuelSlices, InitFuelSlices: c.Limits.StartFuelSlices,
		Logf: l.opts.Logf, OnEvent: l.opts.OnCallout, Journals: l.opts.Journals}
	if c.ContinueOnFailure {
		o.OnFailure = guest.FailContinue
	}
	if l.learns() {
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
