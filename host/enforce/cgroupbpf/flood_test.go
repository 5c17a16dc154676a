//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"io"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/enforce/handoff"
)

const floodedFlows = 100

// floodsDatagrams sends so many large datagrams to each of several, and waits.
func floodsDatagrams(times string) string {
	fd := socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	b := make([]byte, 40_000)
	for n, _ := strconv.Atoi(times); n > 0; n-- {
		for i := range floodedFlows {
			to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 53)
			if err := unix.Sendto(fd, b, 0, sockaddr(to)); err != nil {
				return said(err)
			}
			time.Sleep(20 * time.Microsecond) // Calloutd's socket holds no more than a few.
		}
	}
	_, _ = os.Stdout.WriteString("sent\n")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return "ended"
}

// Who floods flows to a proxy that does not answer takes no more memory than datagrams may.
// What is lost is counted, and who comes late with little is carried all the same.
func TestFloodOfDatagramsIsBounded(t *testing.T) {
	const budget, small = 2 << 20, 2 << 10
	mute, end := enforcetest.Mute(t)
	defer func() { end() }()
	two := greet(t, "udp4", "127.0.0.1:0", "two", nil)
	s := datagramSite(t, mute, two)
	s.opts.MaxDatagramBytes, s.opts.Handoff = budget, handoff.Only(mute, &handoff.Proxy{Kind: handoff.SOCKS5})
	a := s.attach(t)
	defer a.Close()
	before := enforcetest.Heap()
	h := s.start(t, 0, "udp-floods/20")
	require.Equal(t, "sent", h.line())
	enforcetest.IsRead(t, own(a).datagrams[ip4].udp)
	require.Equal(t, []string{"two from 198.51.100.7:53"}, s.run(t, "udp/198.51.100.7:53"))
	stats := a.Datagrams()
	require.LessOrEqual(t, stats.Bytes, int64(budget+floodedFlows*small))
	require.LessOrEqual(t, enforcetest.Heap()-before, int64(budget+floodedFlows<<14), "the flows themselves take some")
	require.Greater(t, stats.Flows, int64(floodedFlows/2))
	require.NotZero(t, stats.Lost[enforce.LostForMemory])

	end()
	end = func() {}
	h.end()
	require.Eventually(t, func() bool { s := a.Datagrams(); return s.Bytes == 0 && s.Flows <= 1 }, time.Minute, time.Millisecond, "nothing is forgotten")
}
