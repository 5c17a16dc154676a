package storetest

import (
	"bytes"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/redirect"
)

func serialsAreNew(t *testing.T, s redirect.Store) {
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
}

func manyThreadsLeaveNothing(t *testing.T, s redirect.Store) {
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
}

func replacedWhileRead(t *testing.T, s redirect.Store) {
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
}

func equal(a, b *redirect.Hop) bool {
	return a.FilterID == b.FilterID && bytes.Equal(a.Record, b.Record) && a.AppID == b.AppID
}
