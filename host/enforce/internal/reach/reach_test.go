package reach

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOf(t *testing.T) {
	for want, addrs := range map[Reach][]string{
		Nowhere: {"0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "ff02::1", "64:ff9b::", "64:ff9b::e000:1"},
		Host:    {"127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"},
		Network: {"10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.127.255.255", "fe80::1", "fe80::1%lo", "fd00::1", "fec0::1",
			"::ffff:10.0.0.1", "64:ff9b::a00:1", "64:ff9b::6440:1", "64:ff9b:1::1", "64:ff9b:1::c000:201", "fec0::1%lo"},
		World: {"192.0.2.1", "100.63.255.255", "100.128.0.1", "2001:db8::1", "64:ff9b::c000:201", "64:ff9b:0:0:0:1::1"},
	} {
		for _, a := range addrs {
			require.Equal(t, want, Of(netip.MustParseAddr(a)), a)
		}
	}
	require.Equal(t, Nowhere, Of(netip.Addr{}))
}
