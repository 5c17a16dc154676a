package host

import (
	"slices"
	"sync/atomic"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

// changeSubscriber is a subscription to changes.
type changeSubscriber struct {
	s     *Session
	sub   fwpm.Subscription
	match func(w *objects, o *object) bool
	tell  func(fwpm.Change)
	ended atomic.Bool
}

// SubscribeChanges is FwpmFilterSubscribeChanges0 and its likes: tell hears of
// objects that come and go, after the commit and in the order of commits
// (CHG-01). It does not hear of what this session changes itself.
//
// tell runs on the goroutine of one who commits and holds no lock, so it may use
// the engine. unsubscribe is FwpmFilterUnsubscribeChanges0: calls that have not
// begun are not made any more. Close unsubscribes too.
func (s *Session) SubscribeChanges(sub fwpm.Subscription, tell func(fwpm.Change)) (unsubscribe func(), err error) {
	e, c := s.e, &changeSubscriber{s: s, sub: sub, tell: tell}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case s.ended():
		return nil, s.fail(fwp.ErrSessionAborted)
	case sub.Kind == 0 || sub.Kind >= fwpm.NumKinds || tell == nil:
		return nil, s.fail(fwp.ErrInvalidParameter)
	case !sub.NotifyOnAdd && !sub.NotifyOnDelete:
		return nil, s.fail(fwp.ErrInvalidFlags)
	case sub.Kind == fwpm.KindFilter:
		m, err := newFilterMatcher(sub.Filters, s.e.opts.PrefixMatchesStart)
		if err != nil {
			return nil, err
		}
		c.match = m.matches
	default:
		match := of(sub.Template)
		c.match = func(_ *objects, o *object) bool { return match(o) }
	}
	e.changes = append(e.changes, c)
	return func() {
		c.ended.Store(true)
		e.mu.Lock()
		defer e.mu.Unlock()
		e.changes = slices.DeleteFunc(e.changes, func(o *changeSubscriber) bool { return o == c })
	}, nil
}

// announceChanges queues what subscribers hear of. The caller holds e.mu.
func (e *Engine) announceChanges(by *Session, old, now *objects, d difference) {
	for _, c := range e.changes {
		if c.s == by {
			continue
		}
		if c.sub.NotifyOnDelete {
			e.announceTo(c, fwpm.ChangeDelete, old, d.gone)
		}
		if c.sub.NotifyOnAdd {
			e.announceTo(c, fwpm.ChangeAdd, now, d.came)
		}
	}
}

func (e *Engine) announceTo(c *changeSubscriber, t fwpm.ChangeType, w *objects, os []*object) {
	for _, o := range os {
		if o.kind != c.sub.Kind || !c.match(w, o) {
			continue
		}
		change := fwpm.Change{Type: t, Kind: o.kind, ID: o.id(), Filter: o.key.filter}
		e.outbox.put(func() {
			if !c.ended.Load() && !c.s.ended() {
				c.tell(change)
			}
		})
	}
}
