package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
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

// manyThreadsHaveMaps has each thread work on hops of its own, beside those of the others:
// what it is told is what a map says.
func manyThreadsHaveMaps(t *testing.T, s redirect.Store) {
	var wg sync.WaitGroup
	for w := range uint64(4) {
		wg.Go(func() {
			if err := isAMap(s, rand.New(rand.NewPCG(1, w))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.Zero(t, s.Len())
}

func isAMap(s redirect.Store, rnd *rand.Rand) error {
	type held struct {
		hop  *redirect.Hop
		refs int
	}
	var live []*held
	for range 4000 {
		if len(live) == 0 || rnd.IntN(3) == 0 && len(live) < 200 {
			h := &held{&redirect.Hop{Serial: s.NewSerial(), Record: make([]byte, rnd.IntN(2000))}, 1}
			if err := s.Put(h.hop); err != nil {
				return fmt.Errorf("put: %w", err)
			}
			live = append(live, h)
			continue
		}
		i := rnd.IntN(len(live))
		h := live[i]
		var err error
		switch serial := h.hop.Serial; rnd.IntN(5) {
		case 0:
			var got *redirect.Hop
			got, err = s.Acquire(serial)
			if err == nil && (got.Serial != serial || len(got.Record) != len(h.hop.Record)) {
				err = fmt.Errorf("hop %d has a record of %d bytes and came as hop %d with %d", serial, len(h.hop.Record), got.Serial, len(got.Record))
			}
			h.refs++
		case 1:
			err = s.Retain(serial)
			h.refs++
		case 2:
			h.hop = &redirect.Hop{Serial: serial, Record: make([]byte, rnd.IntN(2000))}
			err = s.Replace(h.hop)
		default:
			err = s.Release(serial)
			if h.refs--; h.refs == 0 {
				live = append(live[:i], live[i+1:]...)
				if e := s.Retain(serial); !errors.Is(e, redirect.ErrNotFound) {
					err = fmt.Errorf("hop %d is still there: %w", serial, e)
				}
			}
		}
		if err != nil {
			return err
		}
	}
	for _, h := range live {
		for range h.refs {
			if err := s.Release(h.hop.Serial); err != nil {
				return err
			}
		}
	}
	return nil
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
