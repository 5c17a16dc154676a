// Package dnsnames remembers what addresses were called when somebody asked for
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
	"container/list"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/calloutd/calloutd/host/enforce/internal/reach"
	"github.com/calloutd/calloutd/host/fwps"
)

// Bounds of the memory. A program may go on using an address when its time to
// live is over, so an answer counts for a while at least; and a resolver cannot
// make it count for ever.
const (
	maxNames = 256 // of one address
	maxTold  = 16  // of them, to a guest
	minLife  = time.Minute
	maxLife  = time.Hour

	// DefaultBytes is what names may take unless it is said.
	DefaultBytes = 64 << 20
	// leastBytes of them each client can have, whatever the others do.
	leastBytes = 12 << 10
)

// What the memory of a client, of an address and of each of its names is counted as, apart from the name itself.
const (
	clientBytes  = 700
	addressBytes = 420
	nameBytes    = 84
)

// Names remembers, for each client by itself: its own address, or the zero one for all
// programs of this host. Of an address that a client has not asked for counts what anybody
// has. The zero value works; it is safe for concurrent use, and asking takes no lock.
type Names struct {
	Now func() time.Time // Optional: time.Now. Not to be changed once it is asked.
	// MaxBytes is what they may take of the memory. A quarter is for what anybody has asked for, the
	// rest is the clients'. Where there is no more of it those names go that are over, and
	// then those of the client that has the most, of the address that was learned, or learned
	// again, the longest ago. Optional: DefaultBytes. Not to be changed once something is learned.
	MaxBytes int64
	// Logf hears once that names were forgotten before their time. Optional. Not to be changed
	// once something is learned.
	Logf func(format string, args ...any)

	begun   atomic.Bool // something was learned
	entries sync.Map    // key: *entry
	owners  sync.Map    // netip.Addr of the client: *owner
	lost    atomic.Bool // by some owner

	mu                         sync.Mutex
	trusts                     func(resolver netip.AddrPort) bool // nil: all
	anybody                    owner
	clients                    owners    // but for anybody
	bytes                      int64     // of all clients
	swept                      time.Time // when those that were over were looked for
	figures                    Figures
	toldForgotten, toldCrowded bool
}

// Figures say what is remembered.
type Figures struct {
	Clients   int    `json:"clients"`   // that have asked
	Addresses int    `json:"addresses"` // of all clients
	Bytes     int64  `json:"bytes"`     // that these and what anybody has asked for are counted as
	Forgotten uint64 `json:"forgotten"` // addresses that were forgotten before their time, in all
	Crowded   uint64 `json:"crowded"`   // answers to clients that were too many to have names of their own, in all
}

// everybody is the client of what anybody has asked for. Nobody has that address.
var everybody = netip.IPv6Unspecified()

type key struct{ client, addr netip.Addr }

// An entry is what an address is called by a client. It is never changed.
type entry struct {
	names []named // the newest last
	// lost is until when the best of the names would have been good that were too many.
	lost  time.Time
	age   *list.Element
	peer  fwps.PeerNames // what is said until then
	until time.Time
	bytes int64 // that it is counted as
}

type named struct {
	name  string
	until time.Time
	by    unique.Handle[netip.AddrPort]
}

// newEntry is an entry of names that are good.
func newEntry(names []named, lost time.Time, age *list.Element, now time.Time) *entry {
	e := &entry{names: names, age: age, bytes: addressBytes}
	e.peer.Names = make([]string, 0, len(names))
	for _, c := range slices.Backward(names) {
		e.peer.Names = append(e.peer.Names, c.name)
		e.bytes += nameBytes + int64(len(c.name))
		if e.until.IsZero() || c.until.Before(e.until) {
			e.until = c.until
		}
	}
	if lost.After(now) {
		e.lost, e.peer.Forgotten = lost, true
		if e.until.IsZero() || lost.Before(e.until) {
			e.until = lost
		}
	}
	return e
}

// Learn notes that a resolver resolved a name to addresses, for a client.
func (n *Names) Learn(client netip.Addr, resolver netip.AddrPort, name string, addrs []netip.Addr, ttl time.Duration) {
	now := n.now()
	c := named{name, now.Add(min(max(ttl, minLife), maxLife)), unique.Make(resolver)}
	addrs = slices.Clone(addrs)
	for i, a := range addrs {
		addrs[i] = a.Unmap()
	}
	addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return reach.Of(a) != reach.World })
	if name == "" || len(addrs) == 0 {
		return
	}
	if warning := n.note(client.Unmap(), c, addrs, now); warning != "" && n.Logf != nil {
		n.Logf("%s", warning)
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

// Name is what a client called an address last, empty if that is not known.
func (n *Names) Name(client, a netip.Addr) string {
	if p := n.Of(client, a); p != nil && len(p.Names) > 0 {
		return p.Names[0]
	}
	return ""
}

// Of is all that an address is called by a client, or by anybody if the client has not
// asked for it; nil if nothing is known: an ale.Options.PeerNames.
func (n *Names) Of(client, a netip.Addr) *fwps.PeerNames {
	if !n.begun.Load() {
		return nil
	}
	a = a.Unmap()
	if p := n.at(key{client, a}); p != nil {
		return p
	}
	p, lost := n.at(key{everybody, a}), n.hasLost(client)
	switch {
	case !lost:
		return p
	case p == nil:
		return &forgotten
	}
	return &fwps.PeerNames{Names: p.Names, Forgotten: true}
}

var forgotten = fwps.PeerNames{Forgotten: true}

// at is what is good of an entry.
func (n *Names) at(k key) *fwps.PeerNames {
	v, ok := n.entries.Load(k)
	if !ok {
		return nil // Most are not known: the clock is not looked at.
	}
	e, now := v.(*entry), n.now()
	switch {
	case e.until.After(now):
		return &e.peer
	case !latest(e.names, e.lost).After(now):
		return nil
	}
	left := newEntry(good(e.names, now), e.lost, e.age, now)
	left.bytes = e.bytes // Who learns or forgets takes that away.
	n.entries.CompareAndSwap(k, e, left)
	return &left.peer
}

func good(names []named, now time.Time) []named {
	return slices.DeleteFunc(slices.Clone(names), func(c named) bool { return !c.until.After(now) })
}

// hasLost reports whether names were forgotten before their time that a client may have
// asked for.
func (n *Names) hasLost(client netip.Addr) bool {
	if !n.lost.Load() {
		return false
	}
	o := &n.anybody
	if own, ok := n.owners.Load(client); ok {
		o = own.(*owner)
	}
	return o.misses(n.now())
}

// Append appends the newest names of an address to b, each with a zero byte after it.
func (n *Names) Append(client, a netip.Addr, b []byte) []byte {
	p := n.Of(client, a)
	if p == nil {
		return b
	}
	for _, name := range p.Names[:min(len(p.Names), maxTold)] {
		b = append(append(b, name...), 0)
	}
	return b
}

// Figures are those of now.
func (n *Names) Figures() Figures {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := n.figures
	f.Clients, f.Bytes = len(n.clients), n.bytes+n.anybody.bytes
	for _, o := range n.clients {
		f.Addresses += o.age.Len()
	}
	return f
}
