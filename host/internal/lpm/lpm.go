// Package lpm finds the prefixes that cover an address, the longest first.
package lpm

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
)

// A Table is an immutable set of prefixes with values. The zero Table is empty.
type Table[V any] struct {
	t *bart.Table[*Entry[V]]
}

// An Entry is a prefix of a table. Covering is the next shorter one that covers
// it, nil if there is none, so that one lookup finds them all.
type Entry[V any] struct {
	Prefix   netip.Prefix
	Value    V
	Covering *Entry[V]
}

// New returns the table of some prefixes.
func New[V any](prefixes map[netip.Prefix]V) Table[V] {
	t := new(bart.Table[*Entry[V]])
	shortestFirst := slices.SortedFunc(maps.Keys(prefixes), func(a, b netip.Prefix) int { return a.Bits() - b.Bits() })
	for _, p := range shortestFirst {
		covering, _ := t.LookupPrefix(p)
		t.Insert(p, &Entry[V]{Prefix: p, Value: prefixes[p], Covering: covering})
	}
	return Table[V]{t}
}

// Lookup returns the longest prefix that covers a, nil if there is none.
func (t Table[V]) Lookup(a netip.Addr) *Entry[V] {
	if t.t == nil {
		return nil
	}
	e, _ := t.t.Lookup(a)
	return e
}

// All calls f for every value.
func (t Table[V]) All(f func(V)) {
	if t.t == nil {
		return
	}
	for _, e := range t.t.All() {
		f(e.Value)
	}
}
