package sockaddr_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/sdk/go/sockaddr"
)

func TestRoundTrip(t *testing.T) {
	for _, s := range []string{"198.51.100.7:80", "[2001:db8::7]:443", "[::ffff:198.51.100.7]:80"} {
		a := netip.MustParseAddrPort(s)
		b := sockaddr.Append(nil, a)
		require.Len(t, b, sockaddr.Size)
		got, err := sockaddr.Parse(b)
		require.NoError(t, err)
		require.Equal(t, a, got)
	}
	_, err := sockaddr.Parse(make([]byte, 127))
	require.ErrorContains(t, err, "127 bytes")
	_, err = sockaddr.Parse(make([]byte, 128))
	require.ErrorContains(t, err, "address family 0")
}
