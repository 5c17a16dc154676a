package boltstore_test

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/arenastore"
	"github.com/calloutd/calloutd/host/redirect/boltstore"
)

// A record is what a benchmark keeps: 100 to 1,100 bytes.
func hops(n int) []*redirect.Hop {
	hs := make([]*redirect.Hop, n)
	for i := range hs {
		hs[i] = hop(uint64(i), 0)
	}
	return hs
}

var memory = arenastore.Options{MaxHops: 1 << 24}

// BenchmarkKeep is the time from a hop to the disk, with all hops flushed at the
// end. The floor writes the encoded hops to the end of a file and waits for the
// disk after each thousand.
func BenchmarkKeep(b *testing.B) {
	b.Run("floor", func(b *testing.B) {
		f, err := os.Create(path(b))
		require.NoError(b, err)
		defer f.Close()
		hs := hops(b.N)
		b.ResetTimer()
		var buf []byte
		for i, h := range hs {
			buf, _ = h.AppendBinary(buf)
			if i%1000 == 999 || i == len(hs)-1 {
				_, err := f.Write(buf)
				require.NoError(b, err)
				require.NoError(b, f.Sync())
				buf = buf[:0]
			}
		}
	})
	for name, d := range map[string]boltstore.Durability{"none": boltstore.None, "batched": boltstore.Batched} {
		b.Run(name, func(b *testing.B) {
			s := open(b, boltstore.Options{Path: path(b), Durability: d, Memory: memory, Queue: 1 << 24})
			hs := hops(b.N)
			b.ResetTimer()
			for _, h := range hs {
				require.NoError(b, s.Put(h))
			}
			require.NoError(b, s.Flush(b.Context()))
		})
	}
}

// BenchmarkPut is what Put costs its caller while the writer follows.
func BenchmarkPut(b *testing.B) {
	put := func(b *testing.B, s redirect.Store) {
		hs := hops(b.N)
		b.ReportAllocs()
		b.ResetTimer()
		for _, h := range hs {
			if err := s.Put(h); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("arenastore", func(b *testing.B) { put(b, arenastore.New(memory)) })
	b.Run("batched", func(b *testing.B) {
		put(b, open(b, boltstore.Options{Path: path(b), Memory: memory, Queue: 1 << 24}))
	})
}

// BenchmarkSync is what it costs to wait for the disk, alone and together.
func BenchmarkSync(b *testing.B) {
	b.Run("floor", func(b *testing.B) { // A record and fsync each.
		f, err := os.Create(path(b))
		require.NoError(b, err)
		defer f.Close()
		hs := hops(b.N)
		b.ResetTimer()
		for _, h := range hs {
			buf, _ := h.AppendBinary(nil)
			_, err := f.Write(buf)
			require.NoError(b, err)
			require.NoError(b, f.Sync())
		}
	})
	for _, callers := range []int{1, 16, 256} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			s := open(b, boltstore.Options{Path: path(b), Durability: boltstore.Sync, Memory: memory})
			hs := hops(b.N)
			b.ResetTimer()
			var wg sync.WaitGroup
			for c := range callers {
				wg.Go(func() {
					for i := c; i < len(hs); i += callers {
						if err := s.Put(hs[i]); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// BenchmarkOpen is what a hop costs that is found again: it is read, checked, kept
// and written anew.
func BenchmarkOpen(b *testing.B) {
	p := path(b)
	s := open(b, boltstore.Options{Path: p, Durability: boltstore.None, Memory: memory, Queue: 1 << 24})
	for _, h := range hops(b.N) {
		require.NoError(b, s.Put(h))
	}
	require.NoError(b, s.Close())
	b.ResetTimer()
	s = open(b, boltstore.Options{Path: p, Memory: memory})
	require.Equal(b, b.N, s.Len())
}
