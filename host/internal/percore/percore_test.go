package percore_test

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/internal/percore"
)

func TestASerialFromElsewhereHasAShard(t *testing.T) {
	s := percore.NewSerials(4)
	for _, serial := range []uint64{0, 1, 1<<64 - 1, 1 << 63} {
		require.Less(t, s.Shard(serial), 4)
	}
}

// Whoever takes and gives: together they never have more than the limit, and all
// of it comes back.
func TestAQuotaIsExact(t *testing.T) {
	for _, limit := range []int{1, 7, 100, 100_000} {
		const shards = 4
		q := percore.NewQuota(limit, shards)
		var shares [shards]percore.Share
		taken := 0
		take := func(i int) bool {
			if !q.Take(&shares[i]) {
				for j := range shares {
					q.Collect(&shares[j])
				}
				return q.Take(&shares[i])
			}
			return true
		}
		for i := 0; take(i % shards); i++ {
			taken++
		}
		require.Equal(t, limit, taken)
		for i := range taken {
			q.Give(&shares[i%3]) // Not by who took it.
		}
		require.True(t, take(3), "what was given back is there for all")
		q.Give(&shares[3])
		for j := range shares {
			q.Collect(&shares[j])
		}
		require.EqualValues(t, limit, q.Left())
	}
}

func TestSharesGrowAtOnce(t *testing.T) {
	const shards, each = 4, 5000
	q := percore.NewQuota(shards*each, shards)
	var shares [shards]percore.Share
	var wg sync.WaitGroup
	for i := range shards {
		wg.Go(func() {
			n := 0
			for q.Take(&shares[i]) && n < each/2 {
				n++
			}
			for range n {
				q.Give(&shares[i])
			}
		})
	}
	wg.Wait()
	for i := range shares {
		q.Collect(&shares[i])
	}
	require.LessOrEqual(t, q.Left(), int64(shards*each))
	require.GreaterOrEqual(t, q.Left(), int64(shards*each-shards), "at most the one that ended each loop is out")
}
