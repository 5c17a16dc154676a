package host

import (
	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// live is what a classification can see: one value, swapped as a whole.
type live struct {
	program *arbitrate.Program
	objects *objects
	// The Generation at which a layer's filters changed last, and a redirect handle went.
	policyAt, handleAt [fwpm.NumLayers]uint64
}

// publish makes objects live. The caller holds e.mu.
func (e *Engine) publish(next *objects, d difference) error {
	n := *e.live.Load()
	for l, changed := range d.touched(n.objects, next) {
		if changed {
			n.policyAt[l] = max(n.policyAt[l], n.handleAt[l]) + 1
		}
	}
	old := n.objects
	n.objects = next
	if old.booting != next.booting {
		return e.compile(n)
	}
	ch, err := e.change(old, next, d)
	if err != nil {
		return err
	}
	ch.Generations = n.generations()
	if n.program, err = n.program.Change(ch); err != nil { // The program is not that of old.
		return e.compile(n)
	}
	e.live.Store(&n)
	return nil
}

// change is what a program needs to know of a difference. The caller holds e.mu.
func (e *Engine) change(old, next *objects, d difference) (ch arbitrate.Change, err error) {
	others := false
	for _, o := range d.gone {
		if others = others || o.filter == nil; o.filter != nil && old.enforced(o) {
			ch.Gone = append(ch.Gone, o.filter)
		}
	}
	for _, o := range d.came {
		if others = others || o.filter == nil; o.filter != nil && next.enforced(o) {
			ch.Came = append(ch.Came, e.compiled(o))
		}
	}
	if !others {
		return ch, nil
	}
	p := new(fwpm.Policy)
	for o := range next.named.all() {
		if !o.builtin {
			appendTo(p, o)
		}
	}
	ch.Objects, err = arbitrate.NewChecker(p)
	return ch, err
}

// generations are what tells that a layer changed.
func (n *live) generations() (of [fwpm.NumLayers]uint64) {
	for l := range of {
		of[l] = max(n.policyAt[l], n.handleAt[l])
	}
	return of
}

// compile makes n's program and swaps n in. The caller holds e.mu.
func (e *Engine) compile(n live) (err error) {
	o := arbitrate.Options{Lookup: e.slot, PrefixMatchesStart: e.opts.PrefixMatchesStart,
		FaultContinues: e.opts.FaultContinues, PendTimeout: e.opts.PendTimeout, Generations: n.generations(), Cache: e.cache}
	if n.program, err = arbitrate.Compile(e.enforced(n.objects), o); err == nil {
		e.live.Store(&n)
	}
	return err
}

// Generation changes when the filters of a layer do, or what they refer to.
func (e *Engine) Generation(l fwpm.LayerID) uint64 { return e.live.Load().program.Generation(l) }

// TestsLocal reports whether filters of a layer test where connections come from.
func (e *Engine) TestsLocal(l fwpm.LayerID) bool { return e.live.Load().program.TestsLocal(l) }

// ReauthorizeReason says why a flow that was authorized at a layer when its
// Generation was since is to be authorized again.
func (e *Engine) ReauthorizeReason(l fwpm.LayerID, since uint64) fwp.ReauthorizeReason {
	n := e.live.Load()
	if int(l) >= len(n.policyAt) {
		return 0
	}
	var why fwp.ReauthorizeReason
	if n.policyAt[l] > since {
		why |= fwp.ReasonPolicyChange
	}
	if n.handleAt[l] > since {
		why |= fwp.ReasonProxyHandleChanged
	}
	return why
}
