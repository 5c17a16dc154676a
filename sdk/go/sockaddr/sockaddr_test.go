package sockaddr_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/sdk/go/sockaddr"
)

func TestRoundTrip(t *testing.T) {
	for _, s := range []string{"198.51.100.7:80", "[2001:db8::7]:443", "[::ffff:198.51.100.7]:80", "[fe80::7%3]:80", "[ff02::1%4294967295]:1"} {
		a := netip.MustParseAddrPort(s)
		b := sockaddr.Append(nil, a)
		require.Len(t, b, sockaddr.Size)
		got, err := sockaddr.Parse(b)
		require.NoError(t, err)
		require.Equal(t, a, got)
	}
	// sin6_scope_id is the ULONG at offset 24. A name means nothing elsewhere.
	require.Equal(t, []byte{3, 0, 0, 0}, sockaddr.Append(nil, netip.MustParseAddrPort("[fe80::7%3]:80"))[24:28])
	require.Equal(t, make([]byte, 4), sockaddr.Append(nil, netip.MustParseAddrPort("[fe80::7%eth0]:80"))[24:28])
	_, err := sockaddr.Parse(make([]byte, 127))
	require.ErrorContains(t, err, "127 bytes")
	_, err = sockaddr.Parse(make([]byte, 128))
	require.ErrorContains(t, err, "address family 0")
}
