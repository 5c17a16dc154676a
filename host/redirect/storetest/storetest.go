// Package storetest is the suite that every redirect.Store passes.
package storetest

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/redirect"
)

// Run checks a store. open makes an empty one for limit hops, zero for its default.
func Run(t *testing.T, open func(limit int) redirect.Store) {
	for _, c := range []struct {
		rule  string
		limit int
		check func(*testing.T, redirect.Store)
	}{
		{"a hop that was put is there at once", 0, putIsThere},
		{"serials are new, whoever asks", 0, serialsAreNew},
		{"AMB-19 the hop goes with its last reference", 0, goesWithItsLastReference},
		{"every field comes back", 0, everyFieldComesBack},
		{"AMB-12 a blob without bytes is none", 0, blobWithoutBytesIsNone},
		{"a serial that is on record is refused and its hop stays", 0, serialOnRecordIsRefused},
		{"a holder that has the hop counts as one that asked for it", 0, retainedIsHeld},
		{"SC-48 a replaced hop keeps its references", 0, replacedKeepsItsReferences},
		{"the limit counts all hops, wherever they are kept", 100, limitCountsAll},
		{"a full store refuses and keeps every live hop", 32, fullStoreRefuses},
		{"holders on many threads end with nothing left", 0, manyThreadsLeaveNothing},
		{"whoever asks on many threads, each has a map", 0, manyThreadsHaveMaps},
		{"a hop that is replaced while it is read is one or the other", 0, replacedWhileRead},
	} {
		t.Run(c.rule, func(t *testing.T) { c.check(t, open(c.limit)) })
	}
	t.Run("it is a map, whatever is asked", func(t *testing.T) { Model(t, open, nil) })
}

func putIsThere(t *testing.T, s redirect.Store) {
	h := &redirect.Hop{Serial: 7, Record: []byte("r"), Context: []byte("c")}
	require.NoError(t, s.Put(h))
	got, err := s.Acquire(7)
	require.NoError(t, err)
	require.Equal(t, h, got)
	require.Equal(t, 1, s.Len())
}

func goesWithItsLastReference(t *testing.T, s redirect.Store) {
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
}

func everyFieldComesBack(t *testing.T, s redirect.Store) {
	h := &redirect.Hop{Serial: 1 << 63, Handle: 2, Provider: "contoso", FilterID: 3, Callout: "web",
		Original: netip.MustParseAddrPort("[fe80::1%eth0]:80"), Target: netip.MustParseAddrPort("127.0.0.1:8080"),
		TargetPID: 4, ProcessID: 5, AppID: "/usr/bin/curl", Record: make([]byte, redirect.MaxBlob), Context: bytes.Repeat([]byte("c"), redirect.MaxBlob)}
	require.NoError(t, s.Put(h))
	got, err := s.Acquire(h.Serial)
	require.NoError(t, err)
	require.Equal(t, h, got)
}

func blobWithoutBytesIsNone(t *testing.T, s redirect.Store) {
	require.NoError(t, s.Put(&redirect.Hop{Serial: 1, Record: []byte{}, Context: []byte{}}))
	got, err := s.Acquire(1)
	require.NoError(t, err)
	require.Empty(t, got.Record)
	require.Empty(t, got.Context)
}

func serialOnRecordIsRefused(t *testing.T, s redirect.Store) {
	require.NoError(t, s.Put(&redirect.Hop{Serial: 1, Handle: 1}))
	require.ErrorIs(t, s.Put(&redirect.Hop{Serial: 1, Handle: 2}), redirect.ErrExists)
	got, err := s.Acquire(1)
	require.NoError(t, err)
	require.EqualValues(t, 1, got.Handle)
	require.NoError(t, s.Release(1))
	require.NoError(t, s.Release(1))
	require.Zero(t, s.Len())
}

func retainedIsHeld(t *testing.T, s redirect.Store) {
	require.ErrorIs(t, s.Retain(1), redirect.ErrNotFound)
	require.NoError(t, s.Put(&redirect.Hop{Serial: 1}))
	require.NoError(t, s.Retain(1))
	require.NoError(t, s.Release(1))
	require.Equal(t, 1, s.Len())
	require.NoError(t, s.Release(1))
	require.Zero(t, s.Len())
	require.ErrorIs(t, s.Retain(1), redirect.ErrNotFound)
}

func replacedKeepsItsReferences(t *testing.T, s redirect.Store) {
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
}

func limitCountsAll(t *testing.T, s redirect.Store) {
	for i := range 100 {
		require.NoError(t, s.Put(&redirect.Hop{Serial: s.NewSerial()}), "hop %d of 100", i)
	}
	require.ErrorIs(t, s.Put(&redirect.Hop{Serial: s.NewSerial()}), redirect.ErrFull)
}

func fullStoreRefuses(t *testing.T, s redirect.Store) {
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
}
