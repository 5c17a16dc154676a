package arbitrate

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/internal/trie"
)

// Whatever is in the table is let through, however the table grew; of what is not,
// little is.
func TestTheSieveForgetsNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var x index
	own := new(trie.Edit)
	for n := range 5000 {
		key := r.Uint64()
		x.note(key)
		x.table.Edit(own, key)
		if n%500 != 0 {
			continue
		}
		for key := range x.table.All() {
			require.Equal(t, uint(1), x.seen.has(key))
		}
	}
	through := uint(0)
	for range 10_000 {
		through += x.seen.has(r.Uint64())
	}
	require.Less(t, through, uint(2000))
}
