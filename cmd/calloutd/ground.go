package main

import (
	"context"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce/dnsnames"
	"github.com/calloutd/calloutd/host/enforce/handoff"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/localproxy"
	"github.com/calloutd/calloutd/wsk/wsknet"
)

// A ground is what policies have in common that take each other's place: the
// layers, with the records of connections that are under way, and the proxies that
// listen. The layers ask it, and it asks the world that reigns.
type ground struct {
	ale    *ale.Enforcer
	reign  atomic.Pointer[reign]
	client *wsk.Client                        // of the proxies; nil until there is one
	had    map[fwpm.CalloutID]redirect.Handle // of all callouts there were
	listen map[policyfile.Proxy]localProxy
	names  dnsnames.Names // what addresses are called
	undo   []func()
}

// A localProxy is one of calloutd that listens.
type localProxy interface {
	Addr() netip.AddrPort
	Close()
	Shutdown(context.Context)
}

// A reign is the time in which one world decides. Its generations begin where those
// of the one before ended, so that every flow is authorized again (ALE-LAY-12).
type reign struct {
	world      *world
	classifier fwps.Classifier
	base       uint64
}

var _ fwps.Classifier = (*ground)(nil)

func newGround(t *tracer) *ground {
	g := &ground{had: map[fwpm.CalloutID]redirect.Handle{}, listen: map[policyfile.Proxy]localProxy{}}
	store := t.store
	if store == nil {
		store = memstore.New(0)
	}
	g.ale = ale.New(ale.Options{Classifier: g, Store: store, OnRedirect: t.redirect, PeerName: g.names.Name})
	return g
}

// enter makes a world reign, from one classification to the next.
func (g *ground) enter(w *world, t *tracer) {
	next := &reign{world: w, classifier: w.classifier}
	if old := g.reign.Load(); old != nil {
		for l := range fwpm.NumLayers {
			next.base = max(next.base, old.base+old.classifier.Generation(fwpm.LayerID(l))+1)
		}
	}
	t.world.Store(w)
	g.reign.Store(next)
}

// Classify implements fwps.Classifier.
func (g *ground) Classify(ctx context.Context, in *fwps.Incoming, d *fwps.Decision) {
	g.reign.Load().classifier.Classify(ctx, in, d)
}

// Generation implements fwps.Classifier.
func (g *ground) Generation(l fwpm.LayerID) uint64 {
	r := g.reign.Load()
	return r.base + r.classifier.Generation(l)
}

// ReauthorizeReason implements fwps.Classifier.
func (g *ground) ReauthorizeReason(l fwpm.LayerID, since uint64) fwp.ReauthorizeReason {
	r := g.reign.Load()
	if since < r.base {
		return fwp.ReasonPolicyChange
	}
	return r.classifier.ReauthorizeReason(l, since-r.base)
}

// register makes the proxies a client of Winsock Kernel, once.
func (g *ground) register() error {
	if g.client != nil {
		return nil
	}
	self, _ := os.Executable() // Diagnostic only: empty is "unknown program".
	client, leave, err := wsknet.NewClient(wsk.Options{ALE: g.ale, Process: wsk.Process{ID: uint32(os.Getpid()), AppID: self}})
	if err != nil {
		return err
	}
	g.client, g.undo = client, append(g.undo, leave)
	return nil
}

// proxy starts a proxy, or returns the one that runs already.
func (g *ground) proxy(ctx context.Context, p policyfile.Proxy, t *tracer) (localProxy, error) {
	if px := g.listen[p]; px != nil {
		return px, nil
	}
	px, err := g.start(ctx, p, t)
	if err != nil {
		return nil, err
	}
	g.listen[p] = px
	return px, nil
}

func (g *ground) start(ctx context.Context, p policyfile.Proxy, t *tracer) (localProxy, error) {
	start := localproxy.Inspect
	switch p.Kind {
	case policyfile.ProxyForward:
		start = localproxy.Forward
	case policyfile.ProxyPeek:
		start = localproxy.Peek
	case policyfile.ProxyDNS:
		self, _ := os.Executable() // Diagnostic only.
		return dnsnames.Start(ctx, dnsnames.Options{ALE: g.ale, Names: &g.names, Listen: p.Listen, Resolver: p.Address, ProcessID: uint32(os.Getpid()),
			AppID: self, Trusted: dnsnames.SystemResolvers("/etc/resolv.conf"), Logf: t.logf})
	}
	return start(ctx, localproxy.Options{Client: g.client, Listen: p.Listen, Open: g.ale.Open, Release: g.ale.Release, Logf: t.logf})
}

// foreign returns the reigning world's proxy of others at an address.
func (g *ground) foreign(a netip.AddrPort) *handoff.Proxy { return g.reign.Load().world.handoff[a] }

// unused takes the proxies out that the reigning world has not.
func (g *ground) unused() []localProxy {
	var out []localProxy
	for p, px := range g.listen {
		if !slices.Contains(g.reign.Load().world.file.Proxies, p) {
			delete(g.listen, p)
			out = append(out, px)
		}
	}
	return out
}

// inherit notes the handles of a world's callouts for those that come after.
func (g *ground) inherit(w *world) { maps.Copy(g.had, w.handles) }

// Close ends the proxies and what they stand on.
func (g *ground) Close() {
	for _, px := range g.listen {
		px.Close()
	}
	for i := len(g.undo) - 1; i >= 0; i-- {
		g.undo[i]()
	}
}
