// Package storetest is the suite that every redirect.Store passes.
package storetest

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/redirect"
)

// Run checks a store. open makes an empty one for about limit hops, zero for
// its default.
func Run(t *testing.T, open func(limit int) redirect.Store) {
	t.Run("a hop that was put is there at once", func(t *testing.T) {
		s := open(0)
		h := &redirect.Hop{Serial: 7, Record: []byte("r"), Context: []byte("c")}
		require.NoError(t, s.Put(h))
		got, err := s.Acquire(7)
		require.NoError(t, err)
		require.Equal(t, h, got)
		require.Equal(t, 1, s.Len())
	})
	t.Run("AMB-19 the hop goes with its last reference", func(t *testing.T) {
		s := open(0)
		require.NoError(t, s.Put(&redirect.Hop{Serial: 1}))
		_, err := s.Acquire(1)
		require.NoError(t, err)
		require.NoError(t, s.Release(1))
		require.Equal(t, 1, s.Len(), "one holder is left")
		require.NoError(t, s.Release(1))
		require.Zero(t, s.Len())
		_, err = s.Acquire(1)
		require.ErrorIs(t, err, redirect.ErrNotFound)
		require.ErrorIs(t, s.Release(1), redirect.ErrNotFound)
	})
	t.Run("SC-48 a replaced hop keeps its references", func(t *testing.T) {
		s := open(0)
		require.ErrorIs(t, s.Replace(&redirect.Hop{Serial: 3}), redirect.ErrNotFound)
		require.NoError(t, s.Put(&redirect.Hop{Serial: 3}))
		_, err := s.Acquire(3)
		require.NoError(t, err)
		require.NoError(t, s.Replace(&redirect.Hop{Serial: 3, Context: []byte("c")}))
		require.NoError(t, s.Release(3))
		got, err := s.Acquire(3)
		require.NoError(t, err)
		require.Equal(t, "c", string(got.Context))
		require.Equal(t, 1, s.Len())
	})
	t.Run("a full store refuses and keeps every live hop", func(t *testing.T) {
		s := open(32)
		var kept []uint64
		var full bool
		for i := uint64(1); i <= 1000 && !full; i++ {
			switch err := s.Put(&redirect.Hop{Serial: i}); err {
			case nil:
				kept = append(kept, i)
			default:
				require.ErrorIs(t, err, redirect.ErrFull)
				full = true
			}
		}
		require.True(t, full, "the limit never refused")
		for _, serial := range kept {
			_, err := s.Acquire(serial)
			require.NoError(t, err, "hop %d was dropped", serial)
		}
	})
	t.Run("holders on many threads end with nothing left", func(t *testing.T) {
		s := open(0)
		var wg sync.WaitGroup
		for w := range uint64(8) {
			wg.Go(func() {
				for i := range uint64(500) {
					serial := 1 + w*500 + i
					if s.Put(&redirect.Hop{Serial: serial}) != nil {
						t.Error("put refused")
						return
					}
					if h, err := s.Acquire(serial); err != nil || h.Serial != serial {
						t.Error("a live hop was not there")
					}
					_ = s.Release(serial)
					_ = s.Release(serial)
				}
			})
		}
		wg.Wait()
		require.Zero(t, s.Len())
	})
}
