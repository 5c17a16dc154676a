//go:build !race

package percore_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/internal/percore"
)

// Not under the race detector, where a sync.Pool forgets on purpose.
func TestSerialsOfOneCoreAreOfOneShard(t *testing.T) {
	s := percore.NewSerials(percore.Shards())
	shards := map[int]int{}
	const n = 1000
	for range n {
		shards[s.Shard(s.Next())]++
	}
	most := 0
	for _, k := range shards {
		most = max(most, k)
	}
	require.Greater(t, most, n/2, "%v", shards)
}
