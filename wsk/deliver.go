package wsk

import (
	"slices"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// deliver gives a new socket to who waited longest, else to WskAcceptEvent
// (WSK-ACCEPT-02), else keeps it.
func (l *listener) deliver(a *Socket) {
	if l.hand(a, false) || l.acceptEvent(a) {
		<-l.slots
		return
	}
	if l.hand(a, true) {
		<-l.slots
	}
}

// hand gives a to who waited longest. If nobody waits, it reports false, and
// keeps a if told so.
func (l *listener) hand(a *Socket, keep bool) bool {
	l.mu.Lock()
	if l.stopped {
		l.mu.Unlock()
		a.discard()
		return true
	}
	if len(l.waiting) == 0 {
		if keep {
			l.ready = append(l.ready, a)
		}
		l.mu.Unlock()
		return false
	}
	w := l.waiting[0]
	l.waiting = slices.Delete(l.waiting, 0, 1)
	l.mu.Unlock()
	w.take(a)
	w.c.finish(ntstatus.Success, 0)
	return true
}

// acceptEvent offers a to WskAcceptEvent.
func (l *listener) acceptEvent(a *Socket) bool {
	return l.s.event(EventAccept, func() {
		context, d, st := l.s.listenDispatch().AcceptEvent(l.s.context, 0, a.local, a.inFamily(a.conn.Remote()), a)
		if st != ntstatus.Success {
			a.discard()
			return
		}
		a.attach(context, d)
	})
}

// kick offers what was kept to a WskAcceptEvent that was enabled since.
func (l *listener) kick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.stopped && len(l.ready) > 0 {
		l.wg.Go(l.offer)
	}
}

func (l *listener) offer() {
	for {
		l.mu.Lock()
		if l.stopped || len(l.ready) == 0 {
			l.mu.Unlock()
			return
		}
		a := l.ready[0]
		l.ready = slices.Delete(l.ready, 0, 1)
		l.mu.Unlock()
		if !l.acceptEvent(a) {
			if l.hand(a, true) {
				<-l.slots
			}
			return
		}
		<-l.slots
	}
}
