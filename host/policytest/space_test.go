package policytest

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/policyfile"
)

// A set of many networks is as large as its boundaries, and no more than read.
func TestBoundariesOfManyNetworks(t *testing.T) {
	const n = 70_000
	set := make([]netip.Prefix, n)
	for i := range set {
		set[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 14), byte(i >> 6), byte(i << 2)}), 30)
	}
	began := time.Now()
	s := Boundaries(&World{Policy: &policyfile.File{Callouts: []policyfile.Callout{{Sets: [][]netip.Prefix{set, set}}}}})
	require.Less(t, time.Since(began), time.Minute, "it takes less than one")
	require.Contains(t, s.addresses, set[0].Addr().Prev())
	require.Less(t, len(s.addresses), 6*n+10, "each once") // the ends and their neighbours, and what a dual-stack socket calls the ends
}
