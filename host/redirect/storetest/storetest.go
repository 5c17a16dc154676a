// Package storetest is the suite that every redirect.Store passes.
package storetest

import (
	"bytes"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/redirect"
)

// Run checks a store. open makes an empty one for limit hops, zero for its default.
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
	t.Run("serials are new, whoever asks", func(t *testing.T) {
		s := open(0)
		var mu sync.Mutex
		seen := map[uint64]bool{0: true}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 500 {
					serial := s.NewSerial()
					mu.Lock()
					if seen[serial] {
						t.Errorf("serial %d again, or zero", serial)
					}
					seen[serial] = true
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		for serial := range seen {
			require.NoError(t, s.Put(&redirect.Hop{Serial: serial}))
		}
		require.Equal(t, len(seen), s.Len())
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
	t.Run("every field comes back", func(t *testing.T) {
		s := open(0)
		h := &redirect.Hop{Serial: 1 << 63, Handle: 2, Provider: "contoso", FilterID: 3, Callout: "web",
			Original: netip.MustParseAddrPort("[fe80::1%eth0]:80"), Target: netip.MustParseAddrPort("127.0.0.1:8080"),
			TargetPID: 4, ProcessID: 5, AppID: "/usr/bin/curl", Record: make([]byte, redirect.MaxBlob), Context: bytes.Repeat([]byte("c"), redirect.MaxBlob)}
		require.NoError(t, s.Put(h))
		got, err := s.Acquire(h.Serial)
		require.NoError(t, err)
		require.Equal(t, h, got)
	})
	t.Run("AMB-12 a blob without bytes is none", func(t *testing.T) {
		s := open(0)
		require.NoError(t, s.Put(&redirect.Hop{Serial: 1, Record: []byte{}, Context: []byte{}}))
		got, err := s.Acquire(1)
		require.NoError(t, err)
		require.Empty(t, got.Record)
		require.Empty(t, got.Context)
	})
	t.Run("a serial that is on record is refused and its hop stays", func(t *testing.T) {
		s := open(0)
		require.NoError(t, s.Put(&redirect.Hop{Serial: 1, Handle: 1}))
		require.ErrorIs(t, s.Put(&redirect.Hop{Serial: 1, Handle: 2}), redirect.ErrExists)
		got, err := s.Acquire(1)
		require.NoError(t, err)
		require.EqualValues(t, 1, got.Handle)
		require.NoError(t, s.Release(1))
		require.NoError(t, s.Release(1))
		require.Zero(t, s.Len())
	})
	t.Run("a holder that has the hop counts as one that asked for it", func(t *testing.T) {
		s := open(0)
		require.ErrorIs(t, s.Retain(1), redirect.ErrNotFound)
		require.NoError(t, s.Put(&redirect.Hop{Serial: 1}))
		require.NoError(t, s.Retain(1))
		require.NoError(t, s.Release(1))
		require.Equal(t, 1, s.Len())
		require.NoError(t, s.Release(1))
		require.Zero(t, s.Len())
		require.ErrorIs(t, s.Retain(1), redirect.ErrNotFound)
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
	t.Run("the limit counts all hops, wherever they are kept", func(t *testing.T) {
		s := open(100)
		for i := range 100 {
			require.NoError(t, s.Put(&redirect.Hop{Serial: s.NewSerial()}), "hop %d of 100", i)
		}
		require.ErrorIs(t, s.Put(&redirect.Hop{Serial: s.NewSerial()}), redirect.ErrFull)
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
				require.ErrorContains(t, err, "limit", "the reason is one a person can act on")
				full = true
			}
		}
		require.True(t, full, "the limit never refused")
		require.Equal(t, len(kept), s.Len())
		for _, serial := range kept {
			_, err := s.Acquire(serial)
			require.NoError(t, err, "hop %d was dropped", serial)
			require.NoError(t, s.Release(serial))
			require.NoError(t, s.Release(serial))
		}
		require.Zero(t, s.Len())
		require.NoError(t, s.Put(&redirect.Hop{Serial: 2000}), "what was given up makes room")
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
	t.Run("a hop that is replaced while it is read is one or the other", func(t *testing.T) {
		s := open(0)
		version := func(n int) *redirect.Hop {
			return &redirect.Hop{Serial: 1, FilterID: uint64(n), Record: bytes.Repeat([]byte{byte(n)}, n), AppID: strings.Repeat("x", n)}
		}
		require.NoError(t, s.Put(version(0)))
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for range 500 {
					h, err := s.Acquire(1)
					if err != nil || !equal(h, version(int(h.FilterID))) {
						t.Errorf("half a hop: %v, %v", h, err)
						return
					}
				}
			})
		}
		for n := range 500 {
			require.NoError(t, s.Replace(version(n*7%500)))
		}
		wg.Wait()
	})
}

func equal(a, b *redirect.Hop) bool {
	return a.FilterID == b.FilterID && bytes.Equal(a.Record, b.Record) && a.AppID == b.AppID
}
