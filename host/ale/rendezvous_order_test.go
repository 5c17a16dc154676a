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
	now := time.Unix(1000, 0)
	r := newRendezvous(nil, func() time.Time { return now })
	target := netip.MustParseAddrPort("127.0.0.1:9000")
	const ports = 10
	for i := range 10_000 {
		port := 1 + i%ports
		if i == 0 {
			port = 0 // never again
		}
		r.finish(key{fwps.ProtocolTCP, netip.AddrPortFrom(target.Addr(), uint16(40000+port)), target}, r.begin(target), nil)
		now = now.Add(time.Millisecond)
	}
	require.Len(t, r.ready, ports+1)
	require.LessOrEqual(t, len(r.order), 2*len(r.ready)+65)
	now = now.Add(handoverLife)
	r.finish(key{fwps.ProtocolTCP, netip.AddrPortFrom(target.Addr(), 50000), target}, r.begin(target), nil)
	require.Len(t, r.ready, 1)
	require.Len(t, r.order, 1)
	require.Empty(t, r.flights)
}

// Proxies at many ports cost no more memory than one: what a target needed is used again.
func TestTargetsThatComeAndGoAllocateNothing(t *testing.T) {
	r := newRendezvous(nil, time.Now)
	var targets [maxSpare]netip.AddrPort
	var tickets [maxSpare]uint64
	for i := range targets {
		targets[i] = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(9000+i))
	}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		for i, to := range targets {
			tickets[i] = r.begin(to)
		}
		for i, to := range targets {
			r.abandon(to, tickets[i])
		}
	}))
	require.Len(t, r.spare, maxSpare)
}
