package enforcetest

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
)

// simulate takes a connection through the layers without making it.
func (s *site) simulate(t *testing.T, c testCase) string {
	local := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	if c.to.Addr().Is6() {
		local = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	}
	socket := s.ale.NewSocket(fwps.Incoming{Protocol: protocol(c.network), Local: local, ProcessID: uint32(os.Getpid()), AppID: s.w.exe,
		UserID: uint32(os.Geteuid()), UserKnown: true})
	defer socket.Close()
	var to netip.AddrPort
	var err error
	if c.how == "connect" {
		_, err = socket.Connect(t.Context(), c.to, func(_ context.Context, target ale.Target) (netip.AddrPort, error) {
			to = target.Remote
			return local, nil
		})
	}
	if protocol(c.network) == fwps.ProtocolUDP && err == nil {
		to, _, _, err = socket.SendTo(t.Context(), c.to)
	}
	if b := (*ale.BlockedError)(nil); errors.As(err, &b) {
		s.deny(b.Remote)
		return blocked
	}
	require.NoError(t, err)
	switch to {
	case s.w.origin[c.network]:
		return permitted
	case s.w.proxy[c.network]:
		return redirected + c.to.String()
	}
	return "connected to " + to.String()
}
