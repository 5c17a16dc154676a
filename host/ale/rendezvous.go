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
// accept that finds nothing waits while redirects to its address are under way.
// What is found is taken out: from then on the records belong to the accepted
// socket and no longer to a pair of addresses.
type rendezvous struct {
	store redirect.Store

	mu       sync.Mutex
	inflight map[netip.AddrPort]int
	ready    map[key]handover
	order    []arrival // by age, from first on; may have some that are gone
	first    int
	changed  chan struct{} // nil: nobody waits
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
	return &rendezvous{store: s, inflight: map[netip.AddrPort]int{}, ready: map[key]handover{}}
}

// begin announces a redirect to target. finish or abandon must follow.
func (r *rendezvous) begin(target netip.AddrPort) {
	r.mu.Lock()
	r.inflight[plain(target)]++
	r.mu.Unlock()
}

func (r *rendezvous) end(target netip.AddrPort) {
	t := plain(target)
	if r.inflight[t]--; r.inflight[t] == 0 {
		delete(r.inflight, t)
	}
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
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
	var timeout <-chan time.Time
	for {
		r.mu.Lock()
		if h, ok := r.ready[p]; ok {
			delete(r.ready, p)
			r.mu.Unlock()
			return h.records
		}
		if r.inflight[p.target] == 0 {
			r.mu.Unlock()
			return nil
		}
		if r.changed == nil {
			r.changed = make(chan struct{})
		}
		changed := r.changed
		r.mu.Unlock()
		if timeout == nil {
			t := time.NewTimer(acceptWait)
			defer t.Stop()
			timeout = t.C
		}
		select {
		case <-changed:
		case <-timeout:
			return nil
		case <-done:
			return nil
		}
	}
}
