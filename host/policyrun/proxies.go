package policyrun

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/calloutd/calloutd/host/enforce/dnsnames"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/wsk/localproxy"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A localProxy is one of calloutd that listens.
type localProxy interface {
	Addr() netip.AddrPort
	Close()
	Shutdown(context.Context)
}

// learns reports whether a proxy learns what addresses are called.
func (p *Policy) learns() bool {
	return slices.ContainsFunc(p.File.Proxies, func(px policyfile.Proxy) bool { return px.Kind == policyfile.ProxyDNS })
}

func (p *Policy) place(px policyfile.Proxy, a netip.AddrPort) { p.Proxies[px.ID], p.at[a] = a, px }

// describeProxies gives the proxies that would get a port from the system one
// from 61001 on, unless they have others.
func (p *Policy) describeProxies(d Description) {
	p.ProcessID = max(1, d.ProcessID)
	for i, px := range p.File.Proxies {
		a := px.Listen
		if px.Kind.Foreign() {
			a = px.Address
		}
		if a.Port() == 0 {
			a = netip.AddrPortFrom(a.Addr(), uint16(61001+i%4096))
		}
		if had, ok := d.Proxies[px.ID]; ok {
			a = had
		}
		p.place(px, a)
	}
}

// startProxies starts the policy's proxies that do not run already.
func (r *Runner) startProxies(p *Policy) error {
	p.ProcessID = r.opts.Process.ID
	if _, err := r.register(); err != nil {
		return err
	}
	var errs []error
	for _, px := range p.File.Proxies {
		if px.Kind.Foreign() {
			h, err := handedTo(px, p.dir())
			if err != nil {
				errs = append(errs, p.File.At("proxy", px.ID, "credentials", err))
			}
			p.place(px, px.Address)
			p.handoff[px.Address] = h
			continue
		}
		local, err := r.proxy(px)
		if err != nil {
			switch {
			case errors.Is(err, ntstatus.AddressAlreadyExists), errors.Is(err, syscall.EADDRINUSE):
				err = fmt.Errorf("%w: something else listens at %s; port 0 is one that is free", err, px.Listen)
			case errors.Is(err, ntstatus.InvalidAddressComponent), errors.Is(err, syscall.EADDRNOTAVAIL):
				err = fmt.Errorf("%w: this system has no address %s", err, px.Listen.Addr())
			}
			errs = append(errs, p.File.At("proxy", px.ID, "listen", err))
			continue
		}
		p.place(px, local.Addr())
	}
	return errors.Join(errs...)
}

// proxy starts a proxy, or returns the one that runs already.
func (r *Runner) proxy(p policyfile.Proxy) (localProxy, error) {
	if px := r.listen[p]; px != nil {
		return px, nil
	}
	px, err := r.start(p)
	if err != nil {
		return nil, err
	}
	r.listen[p] = px
	return px, nil
}

func (r *Runner) start(p policyfile.Proxy) (localProxy, error) {
	start := localproxy.Inspect
	switch p.Kind {
	case policyfile.ProxyForward:
		start = localproxy.Forward
	case policyfile.ProxyPeek:
		start = localproxy.Peek
	case policyfile.ProxyDNS:
		return dnsnames.Start(r.ctx, dnsnames.Options{ALE: r.ale, Names: &r.names, Listen: p.Listen, Resolver: p.Address, ProcessID: r.opts.Process.ID,
			AppID: r.opts.Process.AppID, Trusted: dnsnames.SystemResolvers("/etc/resolv.conf"), Logf: r.opts.Logf})
	}
	return start(r.ctx, localproxy.Options{Client: r.client, Listen: p.Listen, Open: r.ale.Open, Release: r.ale.Release, Logf: r.opts.Logf})
}

// trusts returns whose answers about names a policy believes: none's, without a proxy for them.
func (r *Runner) trusts(p *Policy) func(resolver netip.AddrPort) bool {
	var learn []*dnsnames.Proxy
	for _, px := range p.File.Proxies {
		if d, ok := r.listen[px].(*dnsnames.Proxy); ok {
			learn = append(learn, d)
		}
	}
	return func(resolver netip.AddrPort) bool {
		return slices.ContainsFunc(learn, func(d *dnsnames.Proxy) bool { return d.Trusts(resolver) })
	}
}

// unused takes the proxies out that the policy in force has not.
func (r *Runner) unused() (out []localProxy) {
	var has []policyfile.Proxy
	if p := r.Policy(); p != nil {
		has = p.File.Proxies
	}
	for p, px := range r.listen {
		if !slices.Contains(has, p) {
			delete(r.listen, p)
			out = append(out, px)
		}
	}
	return out
}

func (r *Runner) shutdown(ctx context.Context, px localProxy) {
	ctx, cancel := context.WithTimeout(ctx, r.opts.Drain)
	defer cancel()
	px.Shutdown(ctx)
}
