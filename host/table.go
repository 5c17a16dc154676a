package host

import (
	"hash/maphash"
	"iter"
	"slices"

	"github.com/calloutd/calloutd/host/internal/trie"
)

// A table is a map from keys that is a value: a copy that is changed shares what
// did not change with the one before.
type table[V any] struct {
	// The pairs of one hash: one, but for keys that meet by chance.
	pairs trie.Map[[]pair[V]]
}

type pair[V any] struct {
	key   key
	value V
}

var tableSeed = maphash.MakeSeed()

func hash(k key) uint64 { return maphash.Comparable(tableSeed, k) }

// get is the value of a key, a zero one if there is none.
func (t *table[V]) get(k key) (v V) {
	if ps := t.pairs.Get(hash(k)); ps != nil {
		if i := index(*ps, k); i >= 0 {
			return (*ps)[i].value
		}
	}
	return v
}

func index[V any](ps []pair[V], k key) int {
	return slices.IndexFunc(ps, func(p pair[V]) bool { return p.key == k })
}

// set gives a key a value.
func (t *table[V]) set(e *trie.Edit, k key, v V) {
	ps := t.pairs.Edit(e, hash(k))
	others := without(*ps, k)
	*ps = append(others, pair[V]{k, v})
}

// remove forgets a key.
func (t *table[V]) remove(e *trie.Edit, k key) {
	h := hash(k)
	if ps := t.pairs.Get(h); ps == nil || index(*ps, k) < 0 {
		return
	}
	ps := t.pairs.Edit(e, h)
	if *ps = without(*ps, k); len(*ps) == 0 {
		t.pairs.Delete(e, h)
	}
}

// without is a copy of ps: other tables have it too.
func without[V any](ps []pair[V], k key) []pair[V] {
	return slices.DeleteFunc(slices.Clone(ps), func(p pair[V]) bool { return p.key == k })
}

// all are the values in no order.
func (t *table[V]) all() iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, ps := range t.pairs.All() {
			for _, p := range *ps {
				if !yield(p.value) {
					return
				}
			}
		}
	}
}
