package dnsnames

import (
	"cmp"
	"container/heap"
	"container/list"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// An owner is a client that has names, or what stands for all of them.
type owner struct {
	client netip.Addr
	age    list.List // of the netip.Addr that it has names for, the oldest first
	bytes  int64
	at     int                       // in the heap
	lost   atomic.Pointer[time.Time] // until when the best of the names that it lost would have been good
}

// misses reports whether a name that it lost would still be good.
func (o *owner) misses(now time.Time) bool {
	t := o.lost.Load()
	return t != nil && t.After(now)
}

// Owners are a heap, the one with the most names first.
type owners []*owner

func (h owners) Len() int           { return len(h) }
func (h owners) Less(i, j int) bool { return h[i].bytes > h[j].bytes }
func (h owners) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].at, h[j].at = i, j }
func (h *owners) Push(x any)        { o := x.(*owner); o.at = len(*h); *h = append(*h, o) }
func (h *owners) Pop() any {
	last := len(*h) - 1
	o := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return o
}

// bounds are what anybody's names may take, and those of all clients.
func (n *Names) bounds() (anybody, clients int64) {
	most := cmp.Or(n.MaxBytes, DefaultBytes)
	return most / 4, most - most/4
}

// note is Learn for addresses that may have names. It returns what is to be said about it.
func (n *Names) note(client netip.Addr, c named, addrs []netip.Addr, now time.Time) (warning string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.trusts != nil && !n.trusts(c.by.Value()) {
		return ""
	}
	n.anybody.client = everybody
	n.begun.Store(true)
	o := n.owner(client, now)
	for _, a := range addrs {
		if o != nil {
			n.learn(o, a, c, now)
		}
		n.learn(&n.anybody, a, c, now)
	}
	loser := n.bound(now)
	switch {
	case loser != nil && !n.toldForgotten:
		n.toldForgotten = true
		return fmt.Sprintf("dns: there is no room for all names that %s asked for: the oldest are forgotten before their time, and filters that block by name block what it connects to and has no name. The number is in the figures, and this is not said again", loser)
	case o == nil && !n.toldCrowded:
		n.toldCrowded = true
		return fmt.Sprintf("dns: %d hosts have names of their own, and there is no room for more: for %s and others counts what anybody asks for. The number is in the figures, and this is not said again", len(n.clients), client)
	}
	return ""
}

func (o *owner) String() string {
	switch {
	case o.client == everybody:
		return "all hosts together"
	case !o.client.IsValid():
		return "the programs of this host"
	}
	return o.client.String()
}

// owner is that of a client. Nil: there are as many as have room for what each of them may
// have.
func (n *Names) owner(client netip.Addr, now time.Time) *owner {
	if o, ok := n.owners.Load(client); ok {
		return o.(*owner)
	}
	_, most := n.bounds()
	full := func() bool { return int64(len(n.clients)) >= max(most/leastBytes, 1) }
	if full() {
		n.sweepAtTimes(now)
	}
	if full() {
		n.figures.Crowded++
		return nil
	}
	o := &owner{client: client, bytes: clientBytes}
	heap.Push(&n.clients, o)
	n.bytes += o.bytes
	n.owners.Store(client, o)
	return o
}

// grow counts what an owner has more.
func (n *Names) grow(o *owner, bytes int64) {
	o.bytes += bytes
	if o != &n.anybody {
		n.bytes += bytes
		heap.Fix(&n.clients, o.at)
	}
}

// learn has an address be called something by an owner.
func (n *Names) learn(o *owner, a netip.Addr, c named, now time.Time) {
	var names []named
	var lost time.Time
	var age *list.Element
	grows := int64(0)
	if v, ok := n.entries.Load(key{o.client, a}); ok {
		old := v.(*entry)
		names = slices.DeleteFunc(good(old.names, now), func(x named) bool { return x.name == c.name })
		lost, age, grows = old.lost, old.age, -old.bytes
		o.age.MoveToBack(age)
	} else {
		age = o.age.PushBack(a)
	}
	names = append(names, c)
	if more := len(names) - maxNames; more > 0 {
		lost = latest(names[:more], lost)
		names = names[more:]
	}
	e := newEntry(slices.Clip(slices.Clone(names)), lost, age, now)
	n.entries.Store(key{o.client, a}, e)
	n.grow(o, grows+e.bytes)
}

// latest is when the last of some names is over, and not before a time.
func latest(names []named, t time.Time) time.Time {
	for _, c := range names {
		if c.until.After(t) {
			t = c.until
		}
	}
	return t
}

// bound makes room where there is none. It returns the last who lost names by that.
func (n *Names) bound(now time.Time) (loser *owner) {
	anybody, clients := n.bounds()
	over := func() (o *owner) {
		switch {
		case n.anybody.bytes > anybody:
			return &n.anybody
		case n.bytes > clients && n.clients[0].age.Len() > 0:
			return n.clients[0]
		}
		return nil
	}
	if over() != nil {
		n.sweepAtTimes(now)
	}
	for o := over(); o != nil; o = over() {
		e := n.forget(o, o.age.Front())
		if t := latest(e.names, e.lost); t.After(now) {
			if !o.misses(t) {
				o.lost.Store(&t)
			}
			n.lost.Store(true)
			n.figures.Forgotten++
			loser = o
		}
	}
	return loser
}

// sweepAtTimes sweeps unless that was done not long ago: what was learned since is not over yet.
func (n *Names) sweepAtTimes(now time.Time) {
	if now.Sub(n.swept) >= minLife {
		n.sweep(now)
	}
}

// sweep forgets what is over or not trusted, and who has nothing.
func (n *Names) sweep(now time.Time) {
	n.swept = now
	n.clean(&n.anybody, now)
	for _, o := range slices.Clone(n.clients) {
		if n.clean(o, now); o.age.Len() == 0 && !o.misses(now) {
			heap.Remove(&n.clients, o.at)
			n.bytes -= o.bytes
			n.owners.Delete(o.client)
		}
	}
}

func (n *Names) clean(o *owner, now time.Time) {
	bad := func(c named) bool { return !c.until.After(now) || n.trusts != nil && !n.trusts(c.by.Value()) }
	for at := o.age.Front(); at != nil; {
		k, this := key{o.client, at.Value.(netip.Addr)}, at
		at = at.Next()
		v, _ := n.entries.Load(k)
		old := v.(*entry)
		names := slices.DeleteFunc(slices.Clone(old.names), bad)
		switch {
		case len(names) == 0 && !old.lost.After(now):
			n.forget(o, this)
		case len(names) < len(old.names):
			e := newEntry(names, old.lost, this, now)
			n.entries.Store(k, e)
			n.grow(o, e.bytes-old.bytes)
		}
	}
}

func (n *Names) forget(o *owner, at *list.Element) *entry {
	v, _ := n.entries.LoadAndDelete(key{o.client, o.age.Remove(at).(netip.Addr)})
	e := v.(*entry)
	n.grow(o, -e.bytes)
	return e
}
