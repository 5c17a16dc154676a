package unreachable

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"
)

// What is said of a datagram has its ends, and nothing that was not sent.
func TestUnreachableNamesTheDatagram(t *testing.T) {
	four, err := headers(netip.MustParseAddrPort("198.18.0.2:1000"), netip.MustParseAddrPort("198.18.1.2:25"))
	require.NoError(t, err)
	h, err := icmp.ParseIPv4Header(four)
	require.NoError(t, err)
	require.Equal(t, "198.18.0.2 198.18.1.2 17 28", fmt.Sprint(h.Src, " ", h.Dst, " ", h.Protocol, " ", h.TotalLen))
	require.Equal(t, []byte{1000 >> 8, 1000 & 255, 0, 25, 0, 8, 0, 0}, four[h.Len:])
	six, err := headers(netip.MustParseAddrPort("[2001:db8::2]:1000"), netip.MustParseAddrPort("[2001:db8::1]:25"))
	require.NoError(t, err)
	h6, err := ipv6.ParseHeader(six)
	require.NoError(t, err)
	require.Equal(t, "2001:db8::2 2001:db8::1 17 8", fmt.Sprint(h6.Src, " ", h6.Dst, " ", h6.NextHeader, " ", h6.PayloadLen))
	require.Equal(t, four[h.Len:], six[ipv6.HeaderLen:])
}
