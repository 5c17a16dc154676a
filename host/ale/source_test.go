package ale_test

import (
	"context"
	"errors"
	"net/netip"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// ALE-FLD-07: a socket that is not bound has no address at CONNECT_REDIRECT. At AUTH_CONNECT it has that of
// the route to where it goes, if somebody reads it there.
func TestAuthConnectHasTheAddressOfTheRoute(t *testing.T) {
	from := netip.MustParseAddr("192.0.2.1")
	noRoute := errors.Join(ale.ErrNoRoute, syscall.ENETUNREACH)
	failed := errors.New("nobody can tell")
	for name, c := range map[string]struct {
		tests   bool
		err     error
		asked   int
		sees    netip.Addr // at AUTH_CONNECT
		is      error
		blocked bool
	}{
		"no filter does":                   {sees: netip.IPv4Unspecified()},
		"a filter does":                    {tests: true, asked: 1, sees: from},
		"a filter does, and it is unknown": {tests: true, err: failed, asked: 1, blocked: true},
		"a filter does, there is no route": {tests: true, err: noRoute, asked: 1, is: syscall.ENETUNREACH},
	} {
		for _, protocol := range []uint8{fwps.ProtocolTCP, fwps.ProtocolUDP} {
			p := &policy{testsLocal: c.tests, at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){fwpm.LayerALEConnectRedirectV4: redirectTo(proxy, 7, 1)}}
			e, _, _ := enforcer(p)
			s := e.NewSocket(fwps.Incoming{Protocol: protocol})
			asked := 0
			s.OnSource(func(_ context.Context, to netip.AddrPort) (netip.Addr, error) {
				require.Equal(t, proxy, to, name)
				asked++
				return from, c.err
			})
			var err error
			if protocol == fwps.ProtocolTCP {
				var f *ale.Flow
				if f, err = s.Connect(t.Context(), origin, func(context.Context, ale.Target) (netip.AddrPort, error) { return netip.AddrPortFrom(from, 4000), nil }); f != nil {
					f.Close()
				}
			} else {
				_, _, _, err = s.SendTo(t.Context(), origin)
			}
			s.Close()
			require.Equal(t, c.asked, asked, name)
			var b *ale.BlockedError
			require.Equal(t, c.blocked, errors.As(err, &b), name)
			if !c.blocked {
				require.ErrorIs(t, err, c.is, name)
			}
			for _, in := range p.seen {
				switch in.Layer {
				case fwpm.LayerALEAuthConnectV4:
					require.Equal(t, c.sees, in.Local.Addr(), name)
				case fwpm.LayerALEConnectRedirectV4:
					require.Equal(t, netip.IPv4Unspecified(), in.Local.Addr(), name)
				}
			}
		}
	}
}

// What does not come from where the system has said is decided as what it is, and ends if that is blocked.
func TestAConnectionThatComesFromElsewhereIsDecidedAnew(t *testing.T) {
	said, does := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddrPort("198.51.100.1:4000")
	p := &policy{testsLocal: true, at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){
		fwpm.LayerALEAuthConnectV4: func(in *fwps.Incoming, d *fwps.Decision) {
			if in.Local.Addr() != said {
				d.Action = fwp.ActionBlock
			}
		}}}
	e, _, _ := enforcer(p)
	s := e.NewSocket(fwps.Incoming{Protocol: fwps.ProtocolTCP})
	defer s.Close()
	s.OnSource(func(context.Context, netip.AddrPort) (netip.Addr, error) { return said, nil })
	f, err := s.Connect(t.Context(), origin, func(context.Context, ale.Target) (netip.AddrPort, error) { return does, nil })
	require.Nil(t, f)
	require.ErrorIs(t, err, ale.ErrAborted)
	var b *ale.BlockedError
	require.ErrorAs(t, err, &b)
	require.Equal(t, does.Addr(), b.Local.Addr())
}

// CH-07: an address that a callout chose is what it comes from; nobody has to be asked.
func TestAuthConnectHasTheAddressThatACalloutChose(t *testing.T) {
	p := &policy{testsLocal: true, at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){
		fwpm.LayerALEConnectRedirectV4: func(in *fwps.Incoming, d *fwps.Decision) {
			r := d.PushConnect()
			r.Remote, r.Local = in.Remote, netip.MustParseAddrPort("127.0.0.9:0")
		}}}
	e, _, _ := enforcer(p)
	s := e.NewSocket(fwps.Incoming{Protocol: fwps.ProtocolTCP})
	defer s.Close()
	s.OnSource(func(context.Context, netip.AddrPort) (netip.Addr, error) { panic("asked") })
	f, err := s.Connect(t.Context(), origin, func(_ context.Context, to ale.Target) (netip.AddrPort, error) { return to.Local, nil })
	require.NoError(t, err)
	f.Close()
	for _, in := range p.seen {
		if in.Layer == fwpm.LayerALEAuthConnectV4 {
			require.Equal(t, "127.0.0.9", in.Local.Addr().String())
		}
	}
}
