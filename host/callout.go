package host

import (
	"errors"
	"fmt"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// registered is one registration of a callout. A callout that registers again is
// another registration with another slot: nothing of the old one, such as what
// it left in filters, can reach the new one.
type registered struct {
	id      fwpm.CalloutID
	callout fwps.Callout // nil once unregistered
	slot    *arbitrate.Slot
	handle  redirect.Handle
}

// slot is where programs find a callout. The caller holds e.mu.
func (e *Engine) slot(id fwpm.CalloutID) *arbitrate.Slot {
	if e.callouts[id] == nil {
		e.callouts[id] = &registered{id: id, slot: &arbitrate.Slot{ID: id}}
	}
	return e.callouts[id].slot
}

// RegisterCallout is FwpsCalloutRegister: it gives the callout of that name its
// code, before or after the policy names it (CO-REG-03). Without a name or code,
// which a fwps.CalloutFunc of nil lacks too, it is ntstatus.InvalidParameter; a
// second one under the same name is ntstatus.FWPAlreadyExists. Each registration has
// its own redirect handle (RH-01): one by name that is zero or another callout's is
// ntstatus.InvalidParameter, too.
//
// A callout that is also a fwps.Notifier hears of filters that call it from now
// on, and must not use a Session from within Notify: the transaction that adds
// the filter waits for it.
//
// unregister is FwpsCalloutUnregisterByKey: filters that call the callout act as
// CO-REG-04 says then: mostly as a block, which at CONNECT_REDIRECT and BIND_REDIRECT
// stops nothing (SC-108) unless ale.Options.BlockAtRedirect says so. It is
// ntstatus.DeviceBusy, and nothing has changed, while the callout holds
// classifications or has flow contexts (CO-REG-05, AMB-44), and
// ntstatus.FWPCalloutNotFound the second time. It does not wait for a Classify that has
// begun: who frees what the callout uses waits for that.
func (e *Engine) RegisterCallout(id fwpm.CalloutID, c fwps.Callout) (h redirect.Handle, unregister func() error, err error) {
	if !hasCode(c) || id == "" { // CO-REG-01
		return 0, nil, fmt.Errorf("callout %q has no name or no code: %w", id, ntstatus.InvalidParameter)
	}
	byName := e.opts.RedirectHandle != nil
	if byName {
		h = e.opts.RedirectHandle(id)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if old := e.callouts[id]; old != nil && old.callout != nil {
		return 0, nil, fmt.Errorf("callout %q is registered already: %w", id, ntstatus.FWPAlreadyExists)
	}
	if h, err = e.calloutHandle(id, byName, h); err != nil {
		return 0, nil, err
	}
	r := &registered{id: id, callout: c, slot: &arbitrate.Slot{ID: id}, handle: h}
	r.slot.Set(c, r.handle)
	e.callouts[id] = r
	if n := *e.live.Load(); n.objects.uses.get(key{kind: fwpm.KindCallout, name: string(id)}) > 0 {
		if err := e.compile(n); err != nil {
			return 0, nil, errors.Join(err, e.dismiss(r))
		}
	}
	return r.handle, func() error { return e.unregister(r) }, nil
}

// hasCode reports whether a callout can be called.
func hasCode(c fwps.Callout) bool {
	f, ok := c.(fwps.CalloutFunc)
	return c != nil && (!ok || f != nil)
}

func (e *Engine) unregister(r *registered) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case r.callout == nil:
		return fmt.Errorf("callout %q is unregistered already: %w", r.id, ntstatus.FWPCalloutNotFound)
	case r.slot.Busy():
		return fmt.Errorf("callout %q holds classifications or has flow contexts: %w", r.id, ntstatus.DeviceBusy)
	}
	return e.dismiss(r)
}

// dismiss ends a registration. The caller holds e.mu.
func (e *Engine) dismiss(r *registered) error {
	r.callout = nil
	r.slot.Set(nil, 0)
	return e.dropHandle(r.handle)
}

// enforced is the policy that a program is made of: what is live now, with what
// callouts left in their filters. The caller holds e.mu.
func (e *Engine) enforced(w *objects) *fwpm.Policy {
	p := new(fwpm.Policy)
	for o := range w.all() {
		switch {
		case o.builtin:
		case o.filter == nil:
			appendTo(p, o)
		case w.enforced(o):
			p.Filters = append(p.Filters, *e.compiled(o))
		}
	}
	return p
}

// compiled is a filter as programs have it. The caller holds e.mu.
func (e *Engine) compiled(o *object) *fwpm.Filter {
	f := *o.filter
	f.EffectiveWeight, f.Context = o.weight, e.context(o)
	return &f
}

// context is what a filter's callout left in it, unless that registration is
// over. The caller holds e.mu.
func (e *Engine) context(o *object) uint64 {
	switch {
	case o.told == nil:
		return o.filter.Context
	case e.callouts[o.filter.Callout] == o.told && o.told.callout != nil:
		return o.context
	}
	return 0
}
