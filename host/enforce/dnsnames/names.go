// Package dnsnames remembers what addresses were called when a program asked for
// them, so that a policy can speak of names.
//
// The proxy answers a program's DNS queries with what the resolver says that the
// program meant to ask, and notes it. A name is what was asked for: that the
// address belongs to it is the resolver's word. So only the answers of resolvers
// that the program cannot choose count, and no name is given to an address that
// nobody outside can speak for: of this host or of a private network (DNS
// rebinding).
package dnsnames

import (
	"iter"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/calloutd/calloutd/host/enforce/internal/reach"
)

// Bounds of the memory. A program may go on using an address when its time to
// live is over, so an answer counts for a while at least; and a resolver cannot
// make it count for ever.
const (
	maxAddresses = 1 << 16
	maxNames     = 16 // of one address
	minLife      = time.Minute
	maxLife      = time.Hour
)

// Names remembers. The zero value works; it is safe for concurrent use, and
// asking takes no lock.
type Names struct {
	Now func() time.Time // Optional: time.Now. Not to be changed once it is asked.

	byAddr sync.Map // netip.Addr: []named, never changed in place, the newest last

	mu    sync.Mutex
	order []netip.Addr // those in byAddr, by age
}

type named struct {
	name  string
	until time.Time
}

// Learn notes that a name was resolved to addresses.
func (n *Names) Learn(name string, addrs []netip.Addr, ttl time.Duration) {
	now := n.now()
	until := now.Add(min(max(ttl, minLife), maxLife))
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range addrs {
		if a = a.Unmap(); name != "" && reach.Of(a) == reach.World {
			n.learn(a, named{name, until}, now)
		}
	}
}

func (n *Names) now() time.Time {
	if n.Now == nil {
		return time.Now()
	}
	return n.Now()
}

// learn keeps the names that are still good, with the new one last.
func (n *Names) learn(a netip.Addr, name named, now time.Time) {
	var names []named
	if old, ok := n.byAddr.Load(a); ok {
		for _, o := range old.([]named) {
			if o.name != name.name && o.until.After(now) {
				names = append(names, o)
			}
		}
	} else {
		n.order = append(n.order, a)
	}
	names = append(names, name)
	n.byAddr.Store(a, slices.Clone(names[max(0, len(names)-maxNames):]))
	if len(n.order) > maxAddresses {
		n.byAddr.Delete(n.order[0])
		n.order = n.order[1:]
	}
}

// Name is what an address was called last, empty if it is not known.
func (n *Names) Name(a netip.Addr) string {
	for name := range n.all(a) {
		return name
	}
	return ""
}

// all are the names of an address that are still good, the newest first.
func (n *Names) all(a netip.Addr) iter.Seq[string] {
	return func(yield func(string) bool) {
		names, ok := n.byAddr.Load(a.Unmap())
		if !ok {
			return // Most are not known: the clock is not looked at.
		}
		now := n.now()
		for _, c := range slices.Backward(names.([]named)) {
			if c.until.After(now) && !yield(c.name) {
				return
			}
		}
	}
}

// Append appends all names of an address to b, the newest first, each with a zero
// byte after it.
func (n *Names) Append(a netip.Addr, b []byte) []byte {
	for name := range n.all(a) {
		b = append(append(b, name...), 0)
	}
	return b
}
