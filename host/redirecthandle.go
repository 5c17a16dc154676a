package host

import (
	"fmt"
	"sync/atomic"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// RedirectHandleCreate is FwpsRedirectHandleCreate0: a redirector of its own
// besides the handle that each callout has (RH-01, RH-03). The provider need not
// be one of the policy and serves for diagnostics only; without one, or with
// flags, it is ntstatus.InvalidParameter (RH-04).
func (e *Engine) RedirectHandleCreate(provider string, flags uint32) (redirect.Handle, error) {
	if provider == "" || flags != 0 {
		return 0, fmt.Errorf("redirect handle of provider %q with flags %#x: %w", provider, flags, ntstatus.InvalidParameter)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.newHandle(provider), nil
}

// counted is the newest handle of all engines: one that opens what another one sealed must
// not take its redirects for those of its own callouts.
var counted atomic.Uint64

// countFrom makes handles that are counted from now on other ones than h and those before
// it. One by name is none of them (redirect.SealKey).
func countFrom(h redirect.Handle) {
	const byName = 1 << 63
	for n := counted.Load(); n < uint64(h) && h < byName; n = counted.Load() {
		counted.CompareAndSwap(n, uint64(h))
	}
}

// newHandle makes a handle that never was. The caller holds e.mu.
func (e *Engine) newHandle(provider string) redirect.Handle {
	h := redirect.Handle(counted.Add(1))
	e.handles[h] = provider
	return h
}

// calloutHandle is the handle of a callout that registers: the one that it inherits, or
// the one by its name if there are such. The caller holds e.mu.
func (e *Engine) calloutHandle(id fwpm.CalloutID, byName bool, h redirect.Handle) (redirect.Handle, error) {
	if had, ok := e.inherited[id]; ok {
		h = had
	} else if !byName {
		return e.newHandle(string(id)), nil
	}
	switch other, taken := e.handles[h]; {
	case h == 0:
		return 0, fmt.Errorf("callout %q: its redirect handle is zero, which is none: %w", id, ntstatus.InvalidParameter)
	case taken:
		return 0, fmt.Errorf("callout %q: the redirect handle %d is that of %q: %w", id, h, other, ntstatus.InvalidParameter)
	}
	delete(e.inherited, id)
	e.handles[h] = string(id)
	return h, nil
}

// RedirectHandleDestroy is FwpsRedirectHandleDestroy0. Connections that were
// redirected with the handle live on with their records, in the state
// redirected-by-other for everybody (AMB-18). An unknown handle is no error.
func (e *Engine) RedirectHandleDestroy(h redirect.Handle) {
	e.mu.Lock()
	defer e.mu.Unlock()
	// A program of objects that are live compiles.
	_ = e.dropHandle(h)
}

// RedirectHandleProvider is who created a handle, false if it is destroyed.
func (e *Engine) RedirectHandleProvider(h redirect.Handle) (provider string, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	provider, ok = e.handles[h]
	return provider, ok
}

// dropHandle forgets a handle and, if the options say so, makes live flows
// outdated. The caller holds e.mu.
func (e *Engine) dropHandle(h redirect.Handle) error {
	if _, ok := e.handles[h]; !ok {
		return nil
	}
	delete(e.handles, h)
	if !e.opts.ReauthorizeOnHandleDestroy {
		return nil
	}
	n := *e.live.Load()
	for _, l := range []fwpm.LayerID{fwpm.LayerALEAuthConnectV4, fwpm.LayerALEAuthConnectV6} {
		n.handleAt[l] = max(n.policyAt[l], n.handleAt[l]) + 1
	}
	return e.compile(n)
}
