package host

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// TxnFlags are the flags of Session.Begin.
type TxnFlags uint32

// TxnReadOnly begins a transaction that cannot change anything and waits for
// nobody: it sees the policy as it was at its beginning.
const TxnReadOnly TxnFlags = 1 // FWPM_TXN_READ_ONLY

// A txn is a transaction: a copy of the objects that becomes the live one.
type txn struct {
	e        *Engine
	by       *Session // nil: the engine itself
	readOnly bool
	since    time.Time     // when it got the lock
	limit    time.Duration // how long it may hold it, 0: for ever
	base     *objects      // what was live when it began
	work     *objects      // nil until something changes
	told     []*object     // filters whose callouts heard ADD_FILTER
}

// begin waits for the lock and begins a transaction of the engine's own, in a
// call. end must follow.
func (e *Engine) begin(wait time.Duration, by *Session) (*txn, error) {
	return e.beginLimited(wait, 0, by)
}

// beginLimited is begin for a transaction that loses the lock when it holds it
// longer than limit. Who waits looks at the limit, so it is set before.
func (e *Engine) beginLimited(wait, limit time.Duration, by *Session) (*txn, error) {
	t := &txn{e: e, by: by, limit: limit}
	var done <-chan struct{}
	if by != nil {
		done = by.done
	}
	if err := e.lock.acquire(t, wait, done); err != nil {
		return nil, err
	}
	t.base = e.live.Load().objects
	return t, nil
}

// end gives the lock back, after what closed sessions left behind is deleted.
func (e *Engine) end(t *txn) {
	next := &txn{e: e}
	for e.lock.pass(t, next) {
		e.sweep(next)
		t = next
	}
}

// reap does what end does when nobody has the lock. If somebody has it, that
// one's end will.
func (e *Engine) reap() {
	t := &txn{e: e}
	if e.lock.takeForOrphans(t) {
		e.end(t)
	}
}

// sweep deletes the dynamic objects of closed sessions. t holds the lock.
func (e *Engine) sweep(t *txn) {
	t.base = e.live.Load().objects
	for _, s := range e.lock.adopt() {
		t.disown(s)
	}
	// Nothing refers to what goes, so what stays compiles.
	_ = t.commit()
}

// disown deletes the dynamic objects of a session (BFE-SES-02).
func (t *txn) disown(s *Session) {
	for o := range t.view().all() { // As it was: what is removed is removed from a copy.
		if o.owner == s {
			t.write().remove(o)
		}
	}
}

// view is what the transaction sees.
func (t *txn) view() *objects {
	if t.work != nil {
		return t.work
	}
	return t.base
}

// write is view, to be changed.
func (t *txn) write() *objects {
	if t.work == nil {
		t.work = t.base.clone()
	}
	return t.work
}

// add checks o and adds it. A failure leaves the transaction as it was
// (BFE-TXN-04).
func (t *txn) add(o *object) error {
	if err := t.view().admit(o); err != nil {
		return err
	}
	if err := t.tellAdd(o); err != nil {
		return err
	}
	t.insert(t.write(), o)
	return nil
}

func (t *txn) insert(w *objects, o *object) {
	t.e.seq++
	o.seq = t.e.seq
	if o.filter != nil {
		t.e.lastFilter = max(t.e.lastFilter, o.filter.ID)
	}
	w.insert(o)
}

// delete removes an object (BFE-OBJ-04).
func (t *txn) delete(k key) error {
	w := t.view()
	o := w.get(k)
	switch {
	case o == nil:
		return k.fail("", kinds[k.kind].missing)
	case o.builtin:
		return k.fail("", fwp.ErrBuiltinObject)
	case o.owner != nil && o.owner != t.by:
		return k.fail("", fwp.ErrWrongSession)
	case w.uses.get(k) > 0:
		return k.fail("", fwp.ErrInUse)
	}
	t.write().remove(o)
	return nil
}

// assignID is the identifier of a filter that came without one: higher than any
// there ever was, so that it is the youngest (AMB-37).
func (t *txn) assignID() (fwpm.FilterID, error) {
	t.e.lastFilter++
	if t.e.lastFilter == 0 {
		t.e.lastFilter--
		return 0, fmt.Errorf("no filter identifier is left: %w", fwp.ErrInvalidParameter)
	}
	return t.e.lastFilter, nil
}

// replace makes p the whole policy. Objects that did not change stay what they
// are, with their owner; errors are all that is wrong, joined.
func (t *txn) replace(p *fwpm.Policy) error {
	errs := []error{check(p)}
	w := t.base.clone()
	var added []*object
	stay := map[key]bool{}
	each(p, func(value any) {
		o := newObject(value)
		old := t.base.get(o.key)
		if stay[o.key] || old != nil && old.builtin {
			return // check has said so.
		}
		stay[o.key] = true
		if old != nil {
			if reflect.DeepEqual(old.value, o.value) {
				return
			}
			o.owner = old.owner
			w.remove(old)
		}
		t.insert(w, o)
		added = append(added, o)
	})
	for o := range t.base.all() {
		if !o.builtin && !stay[o.key] {
			w.remove(o)
		}
	}
	for o := range w.all() {
		errs = append(errs, w.lifetimes(o))
	}
	for _, o := range added {
		errs = append(errs, o.flags())
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, o := range added {
		errs = append(errs, t.tellAdd(o))
	}
	t.work = w
	return errors.Join(errs...)
}

// commit makes the changes live. The transaction is over then.
func (t *txn) commit() error {
	if t.work == nil {
		return nil
	}
	t.e.mu.Lock()
	defer t.e.mu.Unlock()
	d := newDifference(t.base, t.work)
	if err := t.e.publish(t.work, d); err != nil {
		t.forget(t.base)
		return err
	}
	t.e.announce(t.by, t.base, t.work, d)
	t.forget(t.work)
	return nil
}

// abort forgets the changes.
func (t *txn) abort() {
	t.e.mu.Lock()
	defer t.e.mu.Unlock()
	t.forget(t.base)
}
