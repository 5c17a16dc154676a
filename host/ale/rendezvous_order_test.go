package ale

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwps"
)

// Proxies that never ask, and ports that are used again and again, leave no more
// behind than there are ports: also where another port waits all the time.
func TestPortsThatAreUsedAgainLeaveNothingBehind(t *testing.T) {
	r := newRendezvous(nil)
	target := netip.MustParseAddrPort("127.0.0.1:9000")
	now := time.Unix(1000, 0)
	const ports = 10
	for i := range 10_000 {
		port := 1 + i%ports
		if i == 0 {
			port = 0 // never again
		}
		r.finish(key{fwps.ProtocolTCP, netip.AddrPortFrom(target.Addr(), uint16(40000+port)), target}, r.begin(target), nil, now)
		now = now.Add(time.Millisecond)
	}
	require.Len(t, r.ready, ports+1)
	require.LessOrEqual(t, len(r.order), 2*len(r.ready)+65)
	r.finish(key{fwps.ProtocolTCP, netip.AddrPortFrom(target.Addr(), 50000), target}, r.begin(target), nil, now.Add(handoverLife))
	require.Len(t, r.ready, 1)
	require.Len(t, r.order, 1)
	require.Empty(t, r.flights)
}
