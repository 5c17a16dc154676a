package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/enforce/handoff"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A world is one policy made live: with its ground the only place where all parts
// meet.
type world struct {
	*ground
	file       *policyfile.File
	engine     *host.Engine
	classifier fwps.Classifier // the engine, or what records it
	proxies    map[netip.AddrPort]policyfile.Proxy
	handoff    map[netip.AddrPort]*handoff.Proxy // those of the proxies that are others'
	handles    map[fwpm.CalloutID]redirect.Handle
	modules    map[fwpm.CalloutID]*loadedModule
	leave      []func() error // unregister the callouts
	running    []localProxy
	pid        uint32 // calloutd's
	// journals: what callouts are told can be written down, or repeated.
	journals bool
	// learns: a proxy learns what addresses are called.
	learns bool
	// measures: callouts' code is measured.
	measures bool
	searches bool
	measured []*measured
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
	ground  *ground                   // of the world whose place this one is to take; nil: one of its own
	measure bool                      // the code of callouts
	file    *policyfile.File          // the policy, if it was read already
	search  bool                      // by blocks, one instance of each, whatever fails
	saw     func(files ...string)     // hears of the files that the policy names; nil: nobody does
}

func openAs(ctx context.Context, path string, t *tracer, s setup) (_ *world, err error) {
	if s.saw == nil {
		s.saw = func(...string) {}
	}
	file := s.file
	if file == nil {
		if file, err = policyfile.LoadEach(path, func(list string) { s.saw(list) }); err != nil {
			return nil, err
		}
	}
	s.saw(inputs(path, file)...)
	w := &world{ground: s.ground, file: file, proxies: map[netip.AddrPort]policyfile.Proxy{}, handoff: map[netip.AddrPort]*handoff.Proxy{},
		handles: map[fwpm.CalloutID]redirect.Handle{}, modules: map[fwpm.CalloutID]*loadedModule{}}
	w.measures, w.searches = s.measure, s.search
	w.learns = slices.ContainsFunc(file.Proxies, func(p policyfile.Proxy) bool { return p.Kind == policyfile.ProxyDNS })
	w.journals = !s.live || t.tape.records()
	if w.ground == nil {
		w.ground = newGround(t)
		w.closers = append(w.closers, w.ground.Close)
	}
	defer func() {
		if err != nil {
			w.Close()
		}
	}()
	w.engine = host.New(host.Options{OnDecision: t.decision, RedirectHandles: w.had})
	w.classifier = t.tape.wrap(w, t)
	if w.reign.Load() == nil {
		w.enter(w, t)
	}
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
	if err := w.register(); err != nil {
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
		px, err := w.proxy(ctx, p, t)
		if err != nil {
			errs = append(errs, w.file.At("proxy", p.ID, "listen", err))
			continue
		}
		w.running = append(w.running, px)
		addrs[p.ID], w.proxies[px.Addr()] = px.Addr(), p
	}
	return addrs, errors.Join(errs...)
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

// idle unregisters the callouts of a world that reigns no more, and reports whether
// all of them are: not while they hold classifications or have flows (CO-REG-05).
func (w *world) idle() bool {
	w.leave = slices.DeleteFunc(w.leave, func(unregister func() error) bool {
		return !errors.Is(unregister(), ntstatus.DeviceBusy)
	})
	return len(w.leave) == 0
}

// Close ends everything, the newest first.
func (w *world) Close() {
	for i := len(w.closers) - 1; i >= 0; i-- {
		w.closers[i]()
	}
	w.closers = nil
}
