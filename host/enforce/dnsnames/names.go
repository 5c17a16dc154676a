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
	"cmp"
	"container/list"
	"iter"
	"net/netip"
	"slices"
	"sync"
	"time"
	"unique"

	"github.com/calloutd/calloutd/host/enforce/internal/reach"
)

// Bounds of the memory. A program may go on using an address when its time to
// live is over, so an answer counts for a while at least; and a resolver cannot
// make it count for ever.
const (
	maxNames = 16 // of one address
	minLife  = time.Minute
	maxLife  = time.Hour

	// DefaultBytes is what names may take unless it is said.
	DefaultBytes = 32 << 20
)

// What the memory of an address and of each of its names is counted as, apart from the name itself.
const (
	addressBytes = 280
	nameBytes    = 80
)

// Names remembers. The zero value works; it is safe for concurrent use, and
// asking takes no lock.
type Names struct {
	Now func() time.Time // Optional: time.Now. Not to be changed once it is asked.
	// MaxBytes is what they may take of the memory. Where there is no more, those go that are over,
	// and then those of the address that was learned, or learned again, the longest ago: it is called nothing.
	// Optional: DefaultBytes. Not to be changed once something is learned.
	MaxBytes int64

	byAddr sync.Map // netip.Addr: *entry

	mu     sync.Mutex
	trusts func(resolver netip.AddrPort) bool // nil: all
	age    list.List                          // of netip.Addr, the oldest first
	bytes  int64
	swept  time.Time // when those that were over were looked for
}

// An entry is what an address is called. It is never changed.
type entry struct {
	names []named // the newest last
	age   *list.Element
}

type named struct {
	name  string
	until time.Time
	by    unique.Handle[netip.AddrPort]
}

func (e *entry) bytes() int64 {
	n := int64(addressBytes)
	for _, c := range e.names {
		n += nameBytes + int64(len(c.name))
	}
	return n
}

// Learn notes that a resolver resolved a name to addresses.
func (n *Names) Learn(resolver netip.AddrPort, name string, addrs []netip.Addr, ttl time.Duration) {
	now := n.now()
	c := named{name, now.Add(min(max(ttl, minLife), maxLife)), unique.Make(resolver)}
	n.mu.Lock()
	defer n.mu.Unlock()
	if name == "" || n.trusts != nil && !n.trusts(resolver) {
		return
	}
	for _, a := range addrs {
		if a = a.Unmap(); reach.Of(a) == reach.World {
			n.learn(a, c, now)
		}
	}
}

// Trust says whose answers count from now on. What other resolvers have said is forgotten,
// and what they say later is passed over.
func (n *Names) Trust(resolver func(netip.AddrPort) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.trusts = resolver
	n.sweep(n.now())
}

func (n *Names) now() time.Time {
	if n.Now == nil {
		return time.Now()
	}
	return n.Now()
}

// learn has an address be called something.
func (n *Names) learn(a netip.Addr, c named, now time.Time) {
	e := &entry{}
	if old, ok := n.byAddr.Load(a); ok {
		old := old.(*entry)
		e.names = slices.DeleteFunc(slices.Clone(old.names), func(o named) bool { return o.name == c.name || !o.until.After(now) })
		e.age = old.age
		n.age.MoveToBack(e.age)
		n.bytes -= old.bytes()
	} else {
		e.age = n.age.PushBack(a)
	}
	e.names = append(e.names, c)
	e.names = slices.Clone(e.names[max(0, len(e.names)-maxNames):])
	n.bytes += e.bytes()
	n.byAddr.Store(a, e)
	most := cmp.Or(n.MaxBytes, DefaultBytes)
	if n.bytes > most && now.Sub(n.swept) >= minLife { // What was learned since is not over yet.
		n.sweep(now)
	}
	for n.bytes > most {
		n.forget(n.age.Front())
	}
}

// sweep forgets what is over or not trusted.
func (n *Names) sweep(now time.Time) {
	n.swept = now
	bad := func(c named) bool { return !c.until.After(now) || n.trusts != nil && !n.trusts(c.by.Value()) }
	for at := n.age.Front(); at != nil; {
		a, this := at.Value.(netip.Addr), at
		at = at.Next()
		old, _ := n.byAddr.Load(a)
		names := slices.DeleteFunc(slices.Clone(old.(*entry).names), bad)
		switch {
		case len(names) == 0:
			n.forget(this)
		case len(names) < len(old.(*entry).names):
			e := &entry{names, this}
			n.bytes += e.bytes() - old.(*entry).bytes()
			n.byAddr.Store(a, e)
		}
	}
}

func (n *Names) forget(at *list.Element) {
	if e, ok := n.byAddr.LoadAndDelete(n.age.Remove(at)); ok {
		n.bytes -= e.(*entry).bytes()
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
		e, ok := n.byAddr.Load(a.Unmap())
		if !ok {
			return // Most are not known: the clock is not looked at.
		}
		now := n.now()
		for _, c := range slices.Backward(e.(*entry).names) {
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
