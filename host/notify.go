package host

import (
	"fmt"
	"slices"
	"sync"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// current is the registration of the callout that a filter calls, nil if it calls
// none or none is registered. The caller holds e.mu.
func (e *Engine) current(o *object) *registered {
	if o.filter == nil || !o.filter.Action.CallsOut() {
		return nil
	}
	if r := e.callouts[o.filter.Callout]; r != nil && r.callout != nil {
		return r
	}
	return nil
}

// notifier is the notifyFn of the callout that a filter calls, nil if it has none.
func (e *Engine) notifier(o *object) (*registered, fwps.Notifier) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.current(o)
	if r == nil {
		return nil, nil
	}
	n, _ := r.callout.(fwps.Notifier)
	return r, n
}

// tellAdd is NotifyAddFilter: the callout may refuse the filter or leave its
// context in it (CO-NOT-02).
func (t *txn) tellAdd(o *object) error {
	r, n := t.e.notifier(o)
	if n == nil {
		return nil
	}
	f := o.shown(o.filter.Context)
	if err := notify(n, fwps.NotifyAddFilter, f); err != nil {
		return o.fail("callout", fmt.Errorf("%w: %w", fwp.ErrCalloutNotificationFailed, err))
	}
	o.told, o.context = r, f.Context
	t.told = append(t.told, o)
	return nil
}

// shown is the filter as its callout sees it.
func (o *object) shown(context uint64) *fwpm.Filter {
	f := *o.filter
	f.Conditions = slices.Clone(f.Conditions)
	f.EffectiveWeight, f.Context = o.weight, context
	return &f
}

// notify turns a panic of a callout into an error.
func notify(n fwps.Notifier, t fwps.NotifyType, f *fwpm.Filter) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("callout panicked: %v", r)
		}
	}()
	return n.Notify(t, f)
}

// later queues a notification whose result does not count. The caller holds e.mu.
func (e *Engine) later(r *registered, t fwps.NotifyType, o *object) {
	n, ok := r.callout.(fwps.Notifier)
	if _, both := r.callout.(fwps.CommitNotifier); t == fwps.NotifyAddFilterPostCommit && !both {
		ok = false
	}
	if !ok {
		return
	}
	var context uint64 // 0 for a filter that was there before the callout (CO-NOT-03)
	if o.told == r {
		context = o.context
	}
	f := o.shown(context)
	e.outbox.put(func() { _ = notify(n, t, f) })
}

// forget ends a transaction that left kept: callouts that heard of a filter which
// is not in it hear that it is gone. The caller holds e.mu.
func (t *txn) forget(kept *objects) {
	for _, o := range t.told {
		if r := t.e.current(o); r == o.told && kept.get(o.key) != o {
			t.e.later(r, fwps.NotifyDeleteFilter, o)
		}
	}
	t.told, t.work = nil, nil
}

// announce queues what a commit has to tell: callouts first, then subscribers.
// The caller holds e.mu.
func (e *Engine) announce(by *Session, old, now *objects, d difference) {
	for _, o := range d.gone {
		if r := e.current(o); r != nil {
			e.later(r, fwps.NotifyDeleteFilter, o)
		}
	}
	for _, o := range d.came {
		if r := e.current(o); r != nil && r == o.told {
			e.later(r, fwps.NotifyAddFilterPostCommit, o)
		}
	}
	e.announceChanges(by, old, now, d)
}

// An outbox has what is to be told after commits, in their order. It is told by
// whoever comes by and holds no lock, by one at a time: what is told may commit
// again.
type outbox struct {
	mu      sync.Mutex
	calls   []func()
	telling bool
}

func (b *outbox) put(call func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, call)
}

// deliver empties the outbox, unless another goroutine is at it.
func (b *outbox) deliver() {
	for b.tellOne() {
	}
}

func (b *outbox) tellOne() bool {
	b.mu.Lock()
	if b.telling || len(b.calls) == 0 {
		b.mu.Unlock()
		return false
	}
	call := b.calls[0]
	b.calls = b.calls[1:]
	b.telling = true
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.telling = false
		b.mu.Unlock()
	}()
	call()
	return true
}
