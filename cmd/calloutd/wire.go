package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce/handoff"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/localproxy"
)

// A world is one policy made live: the only place where all parts meet.
type world struct {
	file    *policyfile.File
	engine  *host.Engine
	ale     *ale.Enforcer
	proxies map[netip.AddrPort]policyfile.Proxy
	handoff map[netip.AddrPort]*handoff.Proxy // those of the proxies that are others'
	handles map[fwpm.CalloutID]redirect.Handle
	modules map[fwpm.CalloutID]*loadedModule
	running []*localproxy.Proxy
	pid     uint32 // calloutd's
	// journals: what callouts are told can be written down, or repeated.
	journals bool
	closers  []func()
}

// open makes the policy of a file live and reports every mistake: proxies first,
// since the callouts' configuration names their addresses. A live world has
// proxies that listen; the others describe one, on any machine alike.
func open(ctx context.Context, path string, t *tracer, live bool) (*world, error) {
	return openAs(ctx, path, t, setup{live: live})
}

// A setup says how a policy is made live.
type setup struct {
	live    bool
	proxies map[string]netip.AddrPort // where described proxies listen; nil: from 61001 on
	pid     uint32                    // calloutd's in a description; 0: 1
}

func openAs(ctx context.Context, path string, t *tracer, s setup) (_ *world, err error) {
	file, err := policyfile.Load(path)
	if err != nil {
		return nil, err
	}
	w := &world{file: file, proxies: map[netip.AddrPort]policyfile.Proxy{}, handoff: map[netip.AddrPort]*handoff.Proxy{}, handles: map[fwpm.CalloutID]redirect.Handle{}, modules: map[fwpm.CalloutID]*loadedModule{}}
	w.journals = !s.live || t.tape.records()
	t.world = w
	defer func() {
		if err != nil {
			w.Close()
		}
	}()
	w.engine = host.New(host.Options{OnDecision: t.decision})
	w.ale = ale.New(ale.Options{Classifier: t.tape.wrap(w, t), Store: memstore.New(0), OnRedirect: t.redirect})
	var addrs map[string]netip.AddrPort
	if s.live {
		addrs, err = w.startProxies(ctx, filepath.Dir(path), t)
	} else {
		addrs = w.describeProxies(s)
	}
	err = errors.Join(err, w.loadCallouts(ctx, filepath.Dir(path), addrs, t))
	if err != nil {
		return nil, err
	}
	err = w.engine.Update(func(p *fwpm.Policy) error { *p = *file.Policy.Clone(); return nil })
	if err != nil {
		return nil, err
	}
	return w, t.tape.begin(w, path, t)
}

func (w *world) startProxies(ctx context.Context, dir string, t *tracer) (map[string]netip.AddrPort, error) {
	w.pid = uint32(os.Getpid())
	client, err := w.register()
	if err != nil {
		return nil, fmt.Errorf("winsock kernel: %w", err)
	}
	addrs := map[string]netip.AddrPort{}
	var errs []error
	for _, p := range w.file.Proxies {
		if p.Kind.Foreign() {
			h, err := handedTo(p, dir)
			if err != nil {
				errs = append(errs, w.file.At("proxy", p.ID, "credentials", err))
			}
			addrs[p.ID], w.proxies[p.Address], w.handoff[p.Address] = p.Address, p, h
			continue
		}
		start := localproxy.Inspect
		switch p.Kind {
		case policyfile.ProxyForward:
			start = localproxy.Forward
		case policyfile.ProxyPeek:
			start = localproxy.Peek
		}
		px, err := start(ctx, localproxy.Options{Client: client, Listen: p.Listen, Open: w.ale.Open, Release: w.ale.Release, Logf: t.logf})
		if err != nil {
			errs = append(errs, w.file.At("proxy", p.ID, "listen", err))
			continue
		}
		w.closers, w.running = append(w.closers, px.Close), append(w.running, px)
		addrs[p.ID], w.proxies[px.Addr()] = px.Addr(), p
	}
	return addrs, errors.Join(errs...)
}

// register makes the proxies a client of Winsock Kernel.
func (w *world) register() (*wsk.Client, error) {
	self, _ := os.Executable() // Diagnostic only: empty is "unknown program".
	provider := wsk.NewProvider(wsk.Options{ALE: w.ale, Process: wsk.Process{ID: w.pid, AppID: self}})
	reg, npi := new(wsk.Registration), wsk.ProviderNPI{}
	if st := provider.Register(&wsk.ClientNPI{Dispatch: &wsk.ClientDispatch{Version: wsk.Version10}}, reg); !st.Ok() {
		return nil, st.Err()
	}
	w.closers = append(w.closers, reg.Deregister)
	if st := reg.CaptureProviderNPI(wsk.InfiniteWait, &npi); !st.Ok() {
		return nil, st.Err()
	}
	w.closers = append(w.closers, reg.ReleaseProviderNPI)
	return npi.Client, nil
}

// describeProxies gives the proxies that would get a port from the system one
// from 61001 on, and calloutd the process 1, unless they had others.
func (w *world) describeProxies(s setup) map[string]netip.AddrPort {
	w.pid = max(1, s.pid)
	addrs := map[string]netip.AddrPort{}
	for i, p := range w.file.Proxies {
		a := p.Listen
		if p.Kind.Foreign() {
			a = p.Address
		}
		if a.Port() == 0 {
			a = netip.AddrPortFrom(a.Addr(), uint16(61001+i%4096))
		}
		if had, ok := s.proxies[p.ID]; ok {
			a = had
		}
		addrs[p.ID], w.proxies[a] = a, p
	}
	return addrs
}

// proxyAt is the name of the policy's proxy at an address.
func (w *world) proxyAt(a netip.AddrPort) string {
	return w.proxies[netip.AddrPortFrom(a.Addr().Unmap(), a.Port())].ID
}

// kindAt is its kind.
func (w *world) kindAt(a netip.AddrPort) policyfile.ProxyKind {
	return w.proxies[netip.AddrPortFrom(a.Addr().Unmap(), a.Port())].Kind
}

func (w *world) filterName(id fwpm.FilterID) string {
	for _, f := range w.file.Policy.Filters {
		if f.ID == id {
			return f.Name
		}
	}
	return ""
}

// Close ends everything, the newest first.
func (w *world) Close() {
	for i := len(w.closers) - 1; i >= 0; i-- {
		w.closers[i]()
	}
	w.closers = nil
}
