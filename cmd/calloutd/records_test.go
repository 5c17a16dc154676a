package main

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// What a run left that crashed is told by the next one, once, and known there.
func TestRecordsOfAnEarlierRunAreTold(t *testing.T) {
	r := records{path: filepath.Join(t.TempDir(), "records.db")}
	var seal redirect.SealKey
	told := func(left int) string {
		var out strings.Builder
		tr := newTracer(&out, false, false)
		s, done, err := r.open(tr)
		require.NoError(t, err)
		require.Equal(t, left, s.Len())
		if left > 0 {
			require.Equal(t, seal, *tr.seal)
		}
		seal = *tr.seal
		require.NoError(t, s.Put(&redirect.Hop{Serial: s.NewSerial(), FilterID: 7, Callout: "web", ProcessID: 42, AppID: "/usr/bin/curl",
			Original: netip.MustParseAddrPort("198.51.100.7:443"), Target: netip.MustParseAddrPort("127.0.0.1:8080")}))
		done()
		return out.String()
	}
	require.Empty(t, told(0))
	for range 2 {
		require.Contains(t, told(1), "/usr/bin/curl (process 42) to 198.51.100.7:443 was redirected to 127.0.0.1:8080 by callout web, filter 7")
	}
}

func TestRecordsNeedAFile(t *testing.T) {
	r := records{path: filepath.Join(t.TempDir(), "none", "records.db")}
	_, _, err := r.open(newTracer(new(strings.Builder), false, false))
	require.ErrorContains(t, err, "--records: boltstore: "+r.path)
	require.ErrorContains(t, err, "no such file or directory")
	s, done, err := new(records).open(nil)
	require.NoError(t, err)
	require.IsType(t, &memstore.Store{}, s)
	done()
}
