package main

import (
	"context"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyrun"
)

// options let a tracer hear of what becomes of a policy.
func (t *tracer) options() policyrun.Options {
	return policyrun.Options{Store: t.store, SealKey: t.seal, CacheDir: cacheDir(), CacheDirSize: cacheSize(), CompileApart: true, OnRedirect: t.redirect, OnCallout: t.callout, Logf: t.logf,
		OnDecision: func(_ *policyrun.Policy, in *fwps.Incoming, d *fwps.Decision) { t.decision(in, d) },
		Before:     func(p *policyrun.Policy) error { t.policy.Store(p); return nil },
		Classifier: t.tape.wrap(t), Journals: t.tape.records()}
}

// describe opens a policy for connections that exist only in words.
func describe(ctx context.Context, path string, t *tracer) (*policyrun.Policy, error) {
	return new(beside).describe(ctx, path, policyrun.Description{Options: t.options()})
}

// describe opens a policy and what is beside it.
func (b *beside) describe(ctx context.Context, path string, d policyrun.Description) (_ *policyrun.Policy, err error) {
	if d.File, err = b.read(path, d.OnInput); err != nil {
		return nil, err
	}
	return policyrun.Describe(ctx, path, d)
}
