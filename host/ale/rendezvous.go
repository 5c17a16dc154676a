package ale

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/calloutd/calloutd/host/redirect"
)

// A rendezvous hands the records of a redirected connection from the side that
// connects to the side that accepts.
//
// Loopback TCP carries nothing of ours, and the accept can be faster than the
// return of connect, which is when the client's port becomes known. So an
// accept that finds nothing waits while redirects to its address are under way. It
// is woken for its own connection only: many that wait must not wake each other.
// What is found is taken out: from then on the records belong to the accepted
// socket and no longer to a pair of addresses.
type rendezvous struct {
	store redirect.Store

	mu       sync.Mutex
	inflight map[netip.AddrPort]int
	ready    map[key]handover
	order    []arrival // by age, from first on; may have some that are gone
	first    int
	waiting  map[key]chan struct{} // accepts that came first; closed when there is news for them
}

// A key names a connection by the addresses that both of its ends see.
type key struct {
	protocol       uint8
	client, target netip.AddrPort
}

func (k key) plain() key { return key{k.protocol, plain(k.client), plain(k.target)} }

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

func newRendezvous(s redirect.Store) *rendezvous {
	return &rendezvous{store: s, inflight: map[netip.AddrPort]int{}, ready: map[key]handover{}, waiting: map[key]chan struct{}{}}
}

// begin announces a redirect to target. finish or abandon must follow.
func (r *rendezvous) begin(target netip.AddrPort) {
	r.mu.Lock()
	r.inflight[plain(target)]++
	r.mu.Unlock()
}

func (r *rendezvous) end(target netip.AddrPort) {
	t := plain(target)
	if r.inflight[t]--; r.inflight[t] > 0 {
		return
	}
	delete(r.inflight, t)
	for k := range r.waiting { // Those were not redirected.
		if k.target == t {
			r.wake(k)
		}
	}
}

func (r *rendezvous) wake(k key) {
	if c, ok := r.waiting[k]; ok {
		close(c)
		delete(r.waiting, k)
	}
}

func (r *rendezvous) abandon(target netip.AddrPort) {
	r.mu.Lock()
	r.end(target)
	r.mu.Unlock()
}

// finish gives records, and the references that come with them, to whoever
// accepts the connection.
func (r *rendezvous) finish(k key, rs redirect.Records, now time.Time) {
	p := k.plain()
	r.mu.Lock()
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
	r.end(p.target)
	r.mu.Unlock()
	for _, rs := range stale {
		redirect.Release(r.store, rs)
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
	p := k.plain()
	records, news := r.look(p)
	if news == nil {
		return records
	}
	t := time.NewTimer(acceptWait)
	defer t.Stop()
	for news != nil {
		select {
		case <-news:
			records, news = r.look(p)
			continue
		case <-t.C:
		case <-done:
		}
		return r.leave(p, news)
	}
	return records
}

// look takes what is there for an accept. If it may still come, it returns what to
// wait for.
func (r *rendezvous) look(p key) (redirect.Records, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if records, ok := r.pick(p); ok || r.inflight[p.target] == 0 {
		return records, nil
	}
	news, ok := r.waiting[p]
	if !ok {
		news = make(chan struct{})
		r.waiting[p] = news
	}
	return nil, news
}

// leave is the end of an accept that waits no longer, and takes what came just now.
func (r *rendezvous) leave(p key, news <-chan struct{}) redirect.Records {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting[p] == news {
		r.wake(p) // Who else waits for the same looks again.
	}
	records, _ := r.pick(p)
	return records
}

func (r *rendezvous) pick(p key) (redirect.Records, bool) {
	h, ok := r.ready[p]
	delete(r.ready, p)
	return h.records, ok
}
