package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/localproxy"
)

// A world is one policy made live: the only place where all parts meet.
type world struct {
	file    *policyfile.File
	engine  *host.Engine
	ale     *ale.Enforcer
	client  *wsk.Client
	proxies []*localproxy.Proxy
	closers []func()
}

type worldOptions struct {
	onDecision func(*fwps.Incoming, *fwps.Decision)
	onRedirect func(ale.RedirectEvent)
	logf       func(string, ...any)
}

// open makes the policy of a file live: proxies first, since the callouts'
// configuration names their addresses.
func open(ctx context.Context, path string, o worldOptions) (_ *world, err error) {
	file, err := policyfile.Load(path)
	if err != nil {
		return nil, err
	}
	if o.logf == nil {
		o.logf = func(string, ...any) {}
	}
	w := &world{file: file, engine: host.New(host.Options{OnDecision: o.onDecision})}
	defer func() {
		if err != nil {
			w.Close()
		}
	}()
	w.ale = ale.New(ale.Options{Classifier: w.engine, Store: memstore.New(0), OnRedirect: o.onRedirect})
	self, _ := os.Executable() // Diagnostic only: empty is "unknown program".
	provider := wsk.NewProvider(wsk.Options{ALE: w.ale, Process: wsk.Process{ID: uint32(os.Getpid()), AppID: self}})
	if err := w.register(provider); err != nil {
		return nil, fmt.Errorf("winsock kernel: %w", err)
	}

	addrs, err := w.startProxies(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := w.loadCallouts(ctx, filepath.Dir(path), addrs, o); err != nil {
		return nil, err
	}
	err = w.engine.Update(func(p *fwpm.Policy) error { *p = *file.Policy.Clone(); return nil })
	return w, file.Annotate(err)
}

// register makes the proxies a client of Winsock Kernel.
func (w *world) register(p *wsk.Provider) error {
	reg, npi := new(wsk.Registration), wsk.ProviderNPI{}
	if st := p.Register(&wsk.ClientNPI{Dispatch: &wsk.ClientDispatch{Version: wsk.Version10}}, reg); !st.Ok() {
		return st.Err()
	}
	w.closers = append(w.closers, reg.Deregister)
	if st := reg.CaptureProviderNPI(wsk.InfiniteWait, &npi); !st.Ok() {
		return st.Err()
	}
	w.closers = append(w.closers, reg.ReleaseProviderNPI)
	w.client = npi.Client
	return nil
}

func (w *world) startProxies(ctx context.Context, o worldOptions) (map[string]netip.AddrPort, error) {
	addrs := map[string]netip.AddrPort{}
	for _, p := range w.file.Proxies {
		start := localproxy.Inspect
		if p.Kind == "forward" {
			start = localproxy.Forward
		}
		px, err := start(ctx, localproxy.Options{Client: w.client, Listen: p.Listen, Open: w.ale.Open, Release: w.ale.Release, Logf: o.logf})
		if err != nil {
			return nil, fmt.Errorf("proxy %q: %w", p.ID, err)
		}
		w.proxies = append(w.proxies, px)
		w.closers = append(w.closers, px.Close)
		addrs[p.ID] = px.Addr()
	}
	return addrs, nil
}

func (w *world) loadCallouts(ctx context.Context, dir string, proxies map[string]netip.AddrPort, o worldOptions) error {
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
		if err := w.loadCallout(ctx, rt, dir, c, proxies, o); err != nil {
			errs = append(errs, fmt.Errorf("callout %q: %w", c.ID, err))
		}
	}
	return errors.Join(errs...)
}

func (w *world) loadCallout(ctx context.Context, rt *guest.Runtime, dir string, c policyfile.Callout, proxies map[string]netip.AddrPort, o worldOptions) error {
	config, err := w.file.ConfigJSON(c, proxies, uint32(os.Getpid()))
	if err != nil {
		return err
	}
	wasm, err := moduleBytes(ctx, dir, c)
	if err != nil {
		return err
	}
	m, err := rt.Load(ctx, string(c.ID), wasm, guest.ModuleOptions{Config: config, Logf: o.logf})
	if err != nil {
		return err
	}
	// Before the runtime: a spare instance may still be starting.
	w.closers = append(w.closers, func() { m.Close(context.WithoutCancel(ctx)) })
	var callout fwps.Callout = m
	if c.OnFailure == "continue" {
		callout = continueOnFailure(m)
	}
	_, unregister, err := w.engine.RegisterCallout(fwpm.CalloutID(c.ID), callout)
	if err != nil {
		return err
	}
	w.closers = append(w.closers, unregister)
	return nil
}

// continueOnFailure leaves the decision to the other filters when the callout
// fails, which its owner asked for in the policy.
func continueOnFailure(c fwps.Callout) fwps.Callout {
	return fwps.CalloutFunc(func(ctx context.Context, call *fwps.Call, v *fwps.Verdict) error {
		if err := c.Classify(ctx, call, v); err != nil {
			v.Reset()
			v.Action, v.Reason = fwp.ActionContinue, "callout failed (on_failure: continue): "+err.Error()
		}
		return nil
	})
}

func moduleBytes(ctx context.Context, dir string, c policyfile.Callout) ([]byte, error) {
	if c.Wasm != "" {
		return os.ReadFile(under(dir, c.Wasm))
	}
	tmp, err := os.MkdirTemp("", "calloutd-build-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	out := filepath.Join(tmp, "callout.wasm")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildmode=c-shared", "-o", out, ".")
	cmd.Dir = under(dir, c.GoPackage)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build in %s: %w\n%s", c.GoPackage, err, bytes.TrimSpace(msg))
	}
	return os.ReadFile(out)
}

func under(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// Close ends everything, the newest first.
func (w *world) Close() {
	for i := len(w.closers) - 1; i >= 0; i-- {
		w.closers[i]()
	}
	w.closers = nil
}
