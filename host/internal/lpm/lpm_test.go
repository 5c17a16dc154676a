package lpm_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/calloutd/calloutd/host/internal/lpm"
)

// Every covering prefix is found, the longest first.
func TestCovering(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		address := rapid.Custom(func(t *rapid.T) netip.Addr {
			if rapid.Bool().Draw(t, "v4") {
				return netip.AddrFrom4([4]byte{10, byte(rapid.IntRange(0, 3).Draw(t, "b")), byte(rapid.IntRange(0, 3).Draw(t, "c")), byte(rapid.IntRange(0, 3).Draw(t, "d"))})
			}
			return netip.AddrFrom16([16]byte{10: 0xff, 11: 0xff, 12: 10, 15: byte(rapid.IntRange(0, 7).Draw(t, "e"))})
		})
		prefixes := map[netip.Prefix]int{}
		for i := range rapid.IntRange(0, 30).Draw(t, "n") {
			a := address.Draw(t, "prefix")
			prefixes[netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, "bits")).Masked()] = i
		}
		a := address.Draw(t, "address")
		want := map[netip.Prefix]int{}
		for p, v := range prefixes {
			if p.Contains(a) {
				want[p] = v
			}
		}
		got, last := map[netip.Prefix]int{}, 129
		for e := lpm.New(prefixes).Lookup(a); e != nil; e = e.Covering {
			require.Less(t, e.Prefix.Bits(), last)
			got[e.Prefix], last = e.Value, e.Prefix.Bits()
		}
		require.Equal(t, want, got)
	})
}
