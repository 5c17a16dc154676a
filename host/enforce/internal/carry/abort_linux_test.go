package carry

import (
	"context"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/enforce/handoff"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// keep adds a callout that hands on the flow of each connection.
func keep(t *testing.T, e *host.Engine) <-chan *fwps.Flow {
	flows := make(chan *fwps.Flow, 1)
	_, _, err := e.RegisterCallout("keeps", fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		flows <- c.In.Flow
		return nil
	}))
	require.NoError(t, err)
	require.NoError(t, e.Update(func(p *fwpm.Policy) error {
		p.Callouts = append(p.Callouts, fwpm.Callout{ID: "keeps", Name: "keeps"})
		p.Filters = append(p.Filters, fwpm.Filter{ID: 3, Name: "keeps", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionCalloutUnknown, Callout: "keeps"})
		return nil
	}))
	return flows
}

// silent is a listener that does not answer a SYN, as a host that is down.
func silent(t *testing.T) netip.AddrPort {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, unix.Listen(fd, 0))
	sa, err := unix.Getsockname(fd)
	require.NoError(t, err)
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*unix.SockaddrInet4).Port))
	only, err := net.Dial("tcp4", addr.String())
	require.NoError(t, err)
	t.Cleanup(func() { only.Close() })
	return addr
}

// CO-FLW-03: what a callout aborts before there is a connection to its destination, or before
// a proxy has answered, is reset then.
func TestCarryGivesUpWhatACalloutAborts(t *testing.T) {
	for name, c := range map[string]struct {
		to, proxy netip.AddrPort
	}{
		"the destination does not answer": {to: silent(t)},
		"the proxy does not answer":       {to: wanted, proxy: serve(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })},
	} {
		t.Run(name, func(t *testing.T) {
			e := engine(t, c.proxy)
			flows := keep(t, e)
			carrier, denied := on(e)
			carrier.Handoff = handoff.Only(c.proxy, &handoff.Proxy{Kind: handoff.SOCKS5})
			client, over := carried(t, carrier, c.to)
			f := <-flows
			time.Sleep(10 * time.Millisecond) // Likely it connects by now; when it does not yet it must not matter.
			e.FlowAbort(f)
			require.NoError(t, client.SetReadDeadline(time.Now().Add(handoffTime-time.Second)))
			_, err := client.Read(make([]byte, 1))
			require.ErrorIs(t, err, syscall.ECONNRESET)
			<-over
			require.Empty(t, *denied)
		})
	}
}
