package host

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
)

// Options configure an Engine. The zero value works.
type Options struct {
	// OnDecision hears of every classification, on the classifying goroutine.
	// It must not keep or change what it is shown. Optional.
	OnDecision func(in *fwps.Incoming, d *fwps.Decision)

	// PrefixMatchesStart, FaultContinues and PendTimeout are those of
	// arbitrate.Options: AMB-34, AMB-42, AMB-43.
	PrefixMatchesStart, FaultContinues bool
	PendTimeout                        time.Duration
}

// An Engine holds the live policy and the registered callouts. It is a
// fwps.Classifier and safe for concurrent use.
type Engine struct {
	opts    Options
	program atomic.Pointer[arbitrate.Program]

	mu      sync.Mutex // writers only
	policy  *fwpm.Policy
	slots   map[fwpm.CalloutID]*arbitrate.Slot
	handles redirect.Handle
	changes [fwpm.NumLayers]uint64 // how often each layer's filters changed
}

// New returns an engine with an empty policy, which permits everything.
func New(opts Options) *Engine {
	e := &Engine{opts: opts, policy: new(fwpm.Policy), slots: map[fwpm.CalloutID]*arbitrate.Slot{}}
	e.program.Store(new(arbitrate.Program))
	return e
}

// Update changes the policy as one transaction: change gets a copy, which goes
// live only if change returns nil and the whole policy is right. Classifications
// see all of it or none, and never wait (BFE-TXN-04).
func (e *Engine) Update(change func(*fwpm.Policy) error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.policy.Clone()
	if err := change(p); err != nil {
		return err
	}
	changes := e.changed(p)
	prog, err := arbitrate.Compile(p, arbitrate.Options{Lookup: e.slot, Generations: changes,
		PrefixMatchesStart: e.opts.PrefixMatchesStart, FaultContinues: e.opts.FaultContinues, PendTimeout: e.opts.PendTimeout})
	if err != nil {
		return err
	}
	e.changes = changes
	e.policy = p.Clone() // The caller may have kept p.
	e.program.Store(prog)
	return nil
}

// changed counts the layers whose filters p changes.
func (e *Engine) changed(p *fwpm.Policy) [fwpm.NumLayers]uint64 {
	changes := e.changes
	old := map[fwpm.FilterID]*fwpm.Filter{}
	for i := range e.policy.Filters {
		old[e.policy.Filters[i].ID] = &e.policy.Filters[i]
	}
	touch := func(l fwpm.LayerID) {
		if l.Valid() {
			changes[l] = e.changes[l] + 1
		}
	}
	for i := range p.Filters {
		f := &p.Filters[i]
		o := old[f.ID]
		delete(old, f.ID)
		if o != nil && reflect.DeepEqual(o, f) {
			continue
		}
		touch(f.Layer)
		if o != nil {
			touch(o.Layer)
		}
	}
	for _, o := range old {
		touch(o.Layer)
	}
	return changes
}

// Policy returns a copy of the live policy.
func (e *Engine) Policy() *fwpm.Policy {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.policy.Clone()
}

func (e *Engine) slot(id fwpm.CalloutID) *arbitrate.Slot {
	s := e.slots[id]
	if s == nil {
		s = &arbitrate.Slot{ID: id}
		e.slots[id] = s
	}
	return s
}

// RegisterCallout gives the callout of that name its code, before or after the
// policy names it (CO-REG-03). Each registration has its own redirect handle
// (RH-01). A second one under the same name is fwp.ErrAlreadyExists. After
// unregister, filters that call it act as CO-REG-04 says.
func (e *Engine) RegisterCallout(id fwpm.CalloutID, c fwps.Callout) (h redirect.Handle, unregister func(), err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.slot(id)
	if s.Callout() != nil {
		return 0, nil, fmt.Errorf("callout %q: %w", id, fwp.ErrAlreadyExists)
	}
	e.handles++
	s.Set(c, e.handles)
	return e.handles, sync.OnceFunc(func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		s.Set(nil, 0)
	}), nil
}

// Generation changes when the filters of a layer do.
func (e *Engine) Generation(l fwpm.LayerID) uint64 { return e.program.Load().Generation(l) }

// Classify decides one layer and leaves the outcome in d, which the caller owns.
func (e *Engine) Classify(ctx context.Context, in *fwps.Incoming, d *fwps.Decision) {
	e.program.Load().Classify(ctx, in, d)
	if e.opts.OnDecision != nil {
		e.opts.OnDecision(in, d)
	}
}
