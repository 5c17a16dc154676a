package ale

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/calloutd/calloutd/host/redirect"
)

// A rendezvous hands the records of a redirected connection from the side that
// connects to the side that accepts.
//
// Loopback TCP carries nothing of ours, and the accept can be faster than the
// return of connect, which is when the client's port becomes known. So an
// accept that finds nothing waits while redirects to its address are under way that
// began before it: under load there is always a later one. It is woken for its own
// connection only: many that wait must not wake each other.
// What is found is taken out: from then on the records belong to the accepted
// socket and no longer to a pair of addresses.
type rendezvous struct {
	store redirect.Store
	now   func() time.Time

	begun atomic.Uint64 // the last ticket; changed under mu

	mu      sync.Mutex
	flights map[netip.AddrPort]*flights // by target; none is empty
	spare   []*flights
	closed  bool
	ready   map[key]handover
	order   []arrival // by age, from first on; may have some that are gone
	first   int
	waiting map[key]*waiter // those of all flights
}

// A key names a connection by the addresses that both of its ends see.
type key struct {
	protocol       uint8
	client, target netip.AddrPort
}

// plain is the key that both ends know: one may have the name of a link where the other has
// its number.
func (k key) plain() key {
	return key{k.protocol, numbered(plain(k.client)), numbered(plain(k.target))}
}

// An arrival is a handover's place in the order of time.
type arrival struct {
	key
	since time.Time
}

type handover struct {
	records redirect.Records
	since   time.Time
}

// An accept waits this long at most, so that a connect which hangs cannot hang
// strangers; a redirected connection nobody accepted is forgotten after a while.
const (
	acceptWait   = 2 * time.Second
	handoverLife = 2 * time.Minute
)

func newRendezvous(s redirect.Store, now func() time.Time) *rendezvous {
	return &rendezvous{store: s, now: now, flights: map[netip.AddrPort]*flights{}, ready: map[key]handover{}, waiting: map[key]*waiter{}}
}

// begin announces a redirect to target. finish or abandon must follow, with the ticket.
func (r *rendezvous) begin(target netip.AddrPort) (ticket uint64) {
	t := plain(target)
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.flights[t]
	if f == nil {
		if n := len(r.spare); n > 0 {
			f, r.spare = r.spare[n-1], r.spare[:n-1]
		} else {
			f = new(flights)
		}
		r.flights[t] = f
	}
	ticket = r.begun.Add(1)
	f.tickets = append(f.tickets, ticket)
	return ticket
}

// maxSpare is for some targets at once; a program can have as many as there are ports.
const maxSpare = 16

func (r *rendezvous) end(target netip.AddrPort, ticket uint64) {
	f := r.flights[target]
	landed := f.land(ticket)
	for _, w := range landed { // Those were not redirected.
		close(w.news)
		delete(r.waiting, w.key)
	}
	f.waiters = slices.Delete(f.waiters, 0, len(landed))
	if len(f.tickets) > 0 {
		return
	}
	delete(r.flights, target)
	if len(r.spare) < maxSpare {
		r.spare = append(r.spare, f)
	}
}

func (r *rendezvous) wake(k key) {
	if w := r.waiting[k]; w != nil {
		close(w.news)
		delete(r.waiting, k)
		r.flights[k.target].remove(w)
	}
}

func (r *rendezvous) abandon(target netip.AddrPort, ticket uint64) {
	r.mu.Lock()
	r.end(plain(target), ticket)
	r.mu.Unlock()
}

// finish gives records, and the references that come with them, to whoever
// accepts the connection.
func (r *rendezvous) finish(k key, ticket uint64, rs redirect.Records) {
	p, now := k.plain(), r.now()
	r.mu.Lock()
	if r.closed {
		r.end(p.target, ticket)
		r.mu.Unlock()
		redirect.Release(r.store, rs)
		return
	}
	var stale []redirect.Records
	if old, ok := r.ready[p]; ok { // The port was used again: the old one was never accepted.
		stale = append(stale, old.records)
	}
	r.ready[p] = handover{rs, now}
	for ; r.first < len(r.order); r.first++ {
		a := r.order[r.first]
		if !r.waits(a) {
			continue
		}
		if now.Sub(a.since) < handoverLife {
			break
		}
		stale = append(stale, r.ready[a.key].records)
		delete(r.ready, a.key)
	}
	r.tidy()
	r.order = append(r.order, arrival{p, now})
	r.wake(p)
	r.end(p.target, ticket)
	r.mu.Unlock()
	for _, rs := range stale {
		redirect.Release(r.store, rs)
	}
}

// close gives back what nobody has accepted, lets nobody wait, and keeps nothing any more.
func (r *rendezvous) close() {
	r.mu.Lock()
	ready := r.ready
	r.closed, r.ready, r.order, r.first = true, nil, nil, 0
	for k := range r.waiting {
		r.wake(k)
	}
	r.mu.Unlock()
	for _, h := range ready {
		redirect.Release(r.store, h.records)
	}
}

// move has records found under another key that wait under one.
func (r *rendezvous) move(from, to key) {
	r.mu.Lock()
	records, ok := r.pick(from.plain())
	r.mu.Unlock()
	if ok {
		r.finish(to, r.begin(to.target), records)
	}
}

// tidy takes what is gone out of the order, when that is the most of it: ports that
// are used again leave many behind. It moves what stays, so that nothing is allocated.
func (r *rendezvous) tidy() {
	if left := len(r.order) - r.first; r.first >= left || left > 2*len(r.ready)+64 {
		r.order = slices.DeleteFunc(r.order[:copy(r.order, r.order[r.first:])], func(a arrival) bool { return !r.waits(a) })
		r.first = 0
	}
}

// waits reports whether what arrived is still to be accepted.
func (r *rendezvous) waits(a arrival) bool {
	h, ok := r.ready[a.key]
	return ok && h.since.Equal(a.since)
}

// take returns the records of the connection client -> target, nil if it was
// not redirected.
func (r *rendezvous) take(k key, done <-chan struct{}) redirect.Records {
	p, upto := k.plain(), r.begun.Load()+1
	records, w := r.look(p, upto)
	if w == nil {
		return records
	}
	t := time.NewTimer(acceptWait)
	defer t.Stop()
	for w != nil {
		select {
		case <-w.news:
			records, w = r.look(p, upto)
			continue
		case <-t.C:
		case <-done:
		}
		return r.leave(w)
	}
	return records
}

// look takes what is there for an accept. If it may still come, it returns what to
// wait with.
func (r *rendezvous) look(p key, upto uint64) (redirect.Records, *waiter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.flights[p.target]
	if records, ok := r.pick(p); ok || r.closed || !f.under(upto) {
		return records, nil
	}
	w := r.waiting[p]
	if w == nil {
		w = &waiter{p, upto, make(chan struct{})}
		r.waiting[p] = w
		f.add(w)
	}
	return nil, w
}

// leave is the end of an accept that waits no longer, and takes what came just now.
func (r *rendezvous) leave(w *waiter) redirect.Records {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting[w.key] == w {
		r.wake(w.key) // Who else waits for the same looks again.
	}
	records, _ := r.pick(w.key)
	return records
}

func (r *rendezvous) pick(p key) (redirect.Records, bool) {
	h, ok := r.ready[p]
	if !ok || r.now().Sub(h.since) >= handoverLife { // The next finish gives it back.
		return nil, false
	}
	delete(r.ready, p)
	return h.records, true
}
