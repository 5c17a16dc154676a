//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/fwpm"
)

// Who finds the ports that calloutd listens at fills no disk: what was not sent there by the
// kernel's part is refused, and the log of it is bounded.
func TestStrangersFillNoLog(t *testing.T) {
	const each = 200
	s := newSite(t, new(fwpm.Policy), nil)
	var lines enforcetest.Lines
	s.opts.Logf = lines.Logf
	a := s.attach(t)
	h := own(a)
	for range each {
		if c, err := net.Dial("tcp4", h.listen[ip4].Addr().String()); err == nil { // Else it was reset at once.
			_, err = io.ReadAll(c)
			require.ErrorIs(t, err, unix.ECONNRESET)
			c.Close()
		}
	}
	c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: h.datagrams[ip4].udp.LocalAddr().(*net.UDPAddr).Port})
	require.NoError(t, err)
	defer c.Close()
	for range each {
		_, err := c.Write([]byte("hello"))
		require.NoError(t, err)
	}
	enforcetest.IsRead(t, h.datagrams[ip4].udp)
	require.NoError(t, a.Close())
	lines.Bounded(t, 2, 2*each)
}
