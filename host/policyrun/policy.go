package policyrun

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/enforce/dnsnames"
	"github.com/calloutd/calloutd/host/enforce/handoff"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A Policy is one that can decide: with a Runner the only place where all parts
// meet. Its fields are not modified once it is open.
type Policy struct {
	Path    string // of the file
	File    *policyfile.File
	Engine  *host.Engine
	Proxies map[string]netip.AddrPort // where they listen, by ID
	Handles map[fwpm.CalloutID]redirect.Handle
	Modules map[fwpm.CalloutID]*guest.Module
	// ProcessID is the process that the policy's proxies are of.
	ProcessID uint32

	opts       Options
	names      *dnsnames.Names
	classifier fwps.Classifier
	at         map[netip.AddrPort]policyfile.Proxy
	handoff    map[netip.AddrPort]*handoff.Proxy // those of the proxies that are others'
	made       map[fwpm.CalloutID]made
	leave      []func() error // unregister the callouts
	closers    []func()
}

// Made is what a module is made of.
type made struct{ wasm, config []byte }

// A Description says how a policy is described: everything that a live one would
// get from the system.
type Description struct {
	Options
	// Proxies is where proxies listen. Optional: those that would get a port from
	// the system have one from 61001 on.
	Proxies map[string]netip.AddrPort
	// ProcessID is that of the proxies. Optional: 1.
	ProcessID uint32
	// Names is what addresses are called, as a proxy of kind dns would have learned.
	// Optional: nothing is known.
	Names *dnsnames.Names
	// Measures says that it matters how long decisions take: an answer that a guest
	// calls cacheable is not asked for twice.
	Measures bool
	// File is the policy, if it was read already: then the path is where it would be.
	File *policyfile.File
}

// given refuses a file that nothing was read into: as a policy it permits everything,
// which whoever wants it can say (version: 1).
func given(file *policyfile.File) error {
	if file == nil || reflect.ValueOf(file).Elem().IsZero() {
		return errors.New("no policy was given: a policyfile.File with something in it is required, such as Load returns")
	}
	return nil
}

// Describe opens a policy that decides the same everywhere: its callouts are loaded
// and nothing is connected; the proxies are addresses where nobody listens. The
// error has every mistake with its place. The caller closes the policy.
func Describe(ctx context.Context, path string, d Description) (*Policy, error) {
	o := d.Options.filled()
	o.Journals, o.CacheSize, o.triesOut = true, -1, !d.Measures
	file := d.File
	if file == nil {
		var err error
		if file, err = policyfile.LoadEach(path, o.OnInput); err != nil {
			return nil, err
		}
	}
	if err := given(file); err != nil {
		return nil, err
	}
	p := newPolicy(path, file, o, cmp.Or(d.Names, new(dnsnames.Names)), nil)
	p.describeProxies(d)
	err := p.fill(ctx)
	if err == nil {
		err = o.Before(p)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func newPolicy(path string, file *policyfile.File, o Options, names *dnsnames.Names, had map[fwpm.CalloutID]redirect.Handle) *Policy {
	for _, input := range inputs(path, file) {
		o.OnInput(input)
	}
	p := &Policy{Path: path, File: file, Proxies: map[string]netip.AddrPort{}, Handles: map[fwpm.CalloutID]redirect.Handle{}, Modules: map[fwpm.CalloutID]*guest.Module{},
		opts: o, names: names, at: map[netip.AddrPort]policyfile.Proxy{}, handoff: map[netip.AddrPort]*handoff.Proxy{}, made: map[fwpm.CalloutID]made{}}
	engine := host.Options{RedirectHandles: had, CacheSize: o.CacheSize}
	if o.SealKey != nil {
		engine.RedirectHandle = func(id fwpm.CalloutID) redirect.Handle { return o.SealKey.Handle(string(id)) }
	}
	if o.OnDecision != nil {
		engine.OnDecision = func(in *fwps.Incoming, d *fwps.Decision) { o.OnDecision(p, in, d) }
	}
	p.Engine = host.New(engine)
	p.classifier = o.Classifier(p)
	return p
}

// fill loads the callouts, whose configuration names the proxies' addresses, and
// makes the filters live.
func (p *Policy) fill(ctx context.Context) error {
	if err := p.loadCallouts(ctx); err != nil {
		return err
	}
	return p.Engine.Update(func(live *fwpm.Policy) error { *live = *p.File.Policy.Clone(); return nil })
}

// dir is the folder that the policy's files are relative to.
func (p *Policy) dir() string { return filepath.Dir(p.Path) }

// ProxyAt is the policy's proxy at an address.
func (p *Policy) ProxyAt(a netip.AddrPort) (px policyfile.Proxy, ok bool) {
	px, ok = p.at[netip.AddrPortFrom(a.Addr().Unmap(), a.Port())]
	return px, ok
}

// ProxyID is the ID of the policy's proxy at an address; empty if there is none.
func (p *Policy) ProxyID(a netip.AddrPort) string {
	px, _ := p.ProxyAt(a)
	return px.ID
}

// FilterName is what a filter is called; empty for one of another policy.
func (p *Policy) FilterName(id fwpm.FilterID) string {
	for i := range p.File.Policy.Filters {
		if f := &p.File.Policy.Filters[i]; f.ID == id {
			return f.Name
		}
	}
	return ""
}

// ReloadCallout loads the same module anew, as guest.Module.Reload does. It is
// fwp.ErrCalloutNotFound where the policy has no module of that name, such as for a
// model of another product.
func (p *Policy) ReloadCallout(ctx context.Context, id fwpm.CalloutID) error {
	m := p.Modules[id]
	if m == nil {
		return fmt.Errorf("the policy has no module %q: %w", id, fwp.ErrCalloutNotFound)
	}
	return m.Reload(ctx, p.made[id].wasm, p.made[id].config)
}

// idle unregisters the callouts of a policy that is in force no more, and reports
// whether all of them are: not while they hold classifications or have flows
// (CO-REG-05).
func (p *Policy) idle() bool {
	p.leave = slices.DeleteFunc(p.leave, func(unregister func() error) bool {
		return !errors.Is(unregister(), ntstatus.DeviceBusy)
	})
	return len(p.leave) == 0
}

// Close ends a described policy. Those of a Runner are the Runner's to close.
func (p *Policy) Close() {
	for i := len(p.closers) - 1; i >= 0; i-- {
		p.closers[i]()
	}
	p.closers = nil
}
