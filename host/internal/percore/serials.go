// Package percore is what record stores share that let each core work for itself.
package percore

import (
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
)

// Serials gives out serials that end with the number of a shard, the same one for
// all who ask on one core. What a core puts it most often also gives up, and then
// no other core has to wait for it.
type Serials struct {
	core     sync.Pool // of *uint64: the shard of each core
	cores    atomic.Uint64
	counters []counter
}

type counter struct {
	n atomic.Uint64
	_ [120]byte // two cache lines each: processors fetch them together
}

// ShardBits is how many bits at the end of a serial are for the shard; those before
// them count what it got.
const ShardBits = 8

// Shards is how many shards a store should have: a power of two, and more than
// there are cores, since a core may get another one with time.
func Shards() int {
	return min(1<<ShardBits, 1<<bits.Len(uint(2*runtime.GOMAXPROCS(0)-1)))
}

// NewSerials is for a number of shards that Shards returned.
func NewSerials(shards int) *Serials {
	s := &Serials{counters: make([]counter, shards)}
	s.core.New = func() any {
		shard := s.cores.Add(1) % uint64(shards)
		return &shard
	}
	return s
}

// Next returns a serial that was not returned before, larger than zero.
func (s *Serials) Next() uint64 {
	shard := s.core.Get().(*uint64)
	serial := s.counters[*shard].n.Add(1)<<ShardBits | *shard
	s.core.Put(shard)
	return serial
}

// Shard is the shard of a serial, also of one that was made elsewhere.
func (s *Serials) Shard(serial uint64) int { return int(serial & uint64(len(s.counters)-1)) }
