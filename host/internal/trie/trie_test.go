package trie_test

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/calloutd/calloutd/host/internal/trie"
)

func contents(m *trie.Map[int]) map[uint64]int {
	out := map[uint64]int{}
	for k, v := range m.All() {
		out[k] = *v
	}
	return out
}

// Every edit makes a table that is as a Go map would be, and leaves all that were
// before as they were.
func TestEditsAreNewValues(t *testing.T) {
	type version struct {
		table trie.Map[int]
		model map[uint64]int
	}
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.OneOf(rapid.Uint64Range(0, 40), rapid.Map(rapid.Uint64Range(0, 40), func(x uint64) uint64 { return x << 58 }), rapid.Uint64())
		now := version{model: map[uint64]int{}}
		versions := []version{now}
		for range rapid.IntRange(1, 8).Draw(t, "edits") {
			now.model = maps.Clone(now.model)
			e := new(trie.Edit)
			for range rapid.IntRange(1, 60).Draw(t, "changes") {
				k := key.Draw(t, "key")
				if rapid.Bool().Draw(t, "delete") {
					now.table.Delete(e, k)
					delete(now.model, k)
					continue
				}
				*now.table.Edit(e, k) = len(now.model) + 1
				now.model[k] = len(now.model) + 1
				if v := now.table.Get(k); v == nil || *v == 0 {
					t.Fatalf("key %x is not there", k)
				}
				now.model[k] = *now.table.Get(k)
			}
			versions = append(versions, now)
		}
		for _, v := range versions {
			require.Equal(t, v.model, contents(&v.table))
			require.Equal(t, len(v.model), v.table.Len())
		}
	})
}

func TestGetAllIsGet(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var m trie.Map[int]
	e := new(trie.Edit)
	var there []uint64
	for i := range 10_000 {
		there = append(there, r.Uint64())
		*m.Edit(e, there[i]) = i
	}
	for range 1000 {
		keys := make([]uint64, r.IntN(trie.Batch+1))
		for i := range keys {
			keys[i] = r.Uint64()
			if r.IntN(2) == 0 {
				keys[i] = there[r.IntN(len(there))]
			}
		}
		var out [trie.Batch]*int
		m.GetAll(keys, &out)
		for i, k := range keys {
			require.Equal(t, m.Get(k), out[i])
		}
	}
}

// A table from which all goes is as small as an empty one.
func TestNothingIsLeftBehind(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var m trie.Map[int]
	e := new(trie.Edit)
	keys := map[uint64]bool{}
	for range 5000 {
		k := r.Uint64()
		keys[k] = true
		*m.Edit(e, k) = 1
	}
	for k := range keys {
		m.Delete(e, k)
	}
	require.Equal(t, trie.Map[int]{}, m)
}

// A table that grows a crown, once or twice, stays what it was in all versions.
func TestLargeTablesAreValuesToo(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	type version struct {
		table trie.Map[int]
		model map[uint64]int
	}
	now := version{model: map[uint64]int{}}
	var versions []version
	for _, n := range []int{500, 30, 8000, 1000} {
		e := new(trie.Edit)
		now.model = maps.Clone(now.model)
		there := slices.Collect(maps.Keys(now.model))
		for i := range n {
			k := r.Uint64()
			if len(there) > 0 && r.IntN(3) > 0 {
				k = there[r.IntN(len(there))]
			}
			if i%4 == 3 {
				now.table.Delete(e, k)
				delete(now.model, k)
				continue
			}
			*now.table.Edit(e, k), now.model[k] = i, i
		}
		for now.table.Len() < n {
			k := r.Uint64()
			*now.table.Edit(e, k), now.model[k] = n, n
		}
		versions = append(versions, now)
	}
	for k := range now.model {
		now.table.Delete(new(trie.Edit), k)
	}
	require.Equal(t, trie.Map[int]{}, now.table)
	for _, v := range versions {
		require.Equal(t, v.model, contents(&v.table))
		require.Equal(t, len(v.model), v.table.Len())
		for k, want := range v.model {
			require.Equal(t, want, *v.table.Get(k))
		}
	}
}
