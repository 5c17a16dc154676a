package ale_test

import (
	"context"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// What is decided is the address that a system takes, also where a program names another
// form of it.
func TestDestinationIsWhereItArrives(t *testing.T) {
	for _, c := range []struct{ local, to, want, asked string }{
		{"0.0.0.0:0", "0.0.0.0:80", "127.0.0.1:80", "127.0.0.1:80"},
		{"127.0.0.2:7", "0.0.0.0:80", "127.0.0.2:80", "127.0.0.2:80"},
		{"[::]:0", "[::]:80", "[::1]:80", "[::1]:80"},
		{"[2001:db8::1]:7", "[::]:80", "[::1]:80", "[::1]:80"},
		{"[::]:0", "[::%7]:80", "[::1]:80", "[::1]:80"},
		{"[::]:0", "[::ffff:0.0.0.0]:80", "[::ffff:127.0.0.1]:80", "127.0.0.1:80"},
		{"[::ffff:127.0.0.2]:7", "[::ffff:0.0.0.0]:80", "[::ffff:127.0.0.2]:80", "127.0.0.2:80"},
		{"[::]:0", "[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]:80", "127.0.0.1:80"},
		{"[::]:0", "[::ffff:127.0.0.1%7]:80", "[::ffff:127.0.0.1]:80", "127.0.0.1:80"},
		{"[::]:0", "[::1%7]:80", "[::1]:80", "[::1]:80"},
		{"[::]:0", "[2001:db8::9%7]:80", "[2001:db8::9]:80", "[2001:db8::9]:80"},
		{"[::]:0", "[fe80::9%7]:80", "[fe80::9%7]:80", "[fe80::9%7]:80"},
		{"[::]:0", "[ff02::9%7]:80", "[ff02::9%7]:80", "[ff02::9%7]:80"},
		{"0.0.0.0:0", "255.255.255.255:80", "255.255.255.255:80", "255.255.255.255:80"},
	} {
		for _, protocol := range []uint8{fwps.ProtocolTCP, fwps.ProtocolUDP} {
			p := &policy{}
			e, _, _ := enforcer(p)
			in := app().in
			in.Protocol, in.Local = protocol, netip.MustParseAddrPort(c.local)
			s := e.NewSocket(in)
			to, went := netip.MustParseAddrPort(c.to), netip.AddrPort{}
			if protocol == fwps.ProtocolTCP {
				f, err := s.Connect(t.Context(), to, func(_ context.Context, to ale.Target) (netip.AddrPort, error) {
					went = to.Remote
					return client, nil
				})
				require.NoError(t, err)
				f.Close()
			} else {
				var err error
				went, _, _, err = s.SendTo(t.Context(), to)
				require.NoError(t, err)
				_, _, created, err := s.SendTo(t.Context(), netip.MustParseAddrPort(c.want))
				require.NoError(t, err)
				require.False(t, created, "one flow: %v", c)
			}
			s.Close()
			require.Equal(t, c.want, went.String(), "%v", c)
			asked := 0
			for _, in := range p.seen {
				switch in.Layer.ForFamily(false) {
				case fwpm.LayerALEConnectRedirectV4:
					require.Equal(t, c.want, in.Remote.String(), "%v", c)
				case fwpm.LayerALEAuthConnectV4:
					asked++
					require.Equal(t, c.asked, in.Remote.String(), "%v", c)
				}
			}
			require.Equal(t, 1, asked)
		}
	}
}

// What has no address is not decided, and does not pass.
func TestNothingGoesToNoAddress(t *testing.T) {
	for _, protocol := range []uint8{fwps.ProtocolTCP, fwps.ProtocolUDP, fwps.ProtocolICMP} {
		p := &policy{}
		e, _, _ := enforcer(p)
		in := app().in
		in.Protocol = protocol
		s := e.NewSocket(in)
		_, err := s.Connect(t.Context(), netip.AddrPort{}, func(context.Context, ale.Target) (netip.AddrPort, error) {
			t.Error("it connects")
			return client, nil
		})
		require.ErrorIs(t, err, ale.ErrNoDestination)
		_, _, _, err = s.SendTo(t.Context(), netip.AddrPort{})
		require.ErrorIs(t, err, ale.ErrNoDestination)
		_, _, _, err = s.SendICMP(t.Context(), netip.Addr{}, ale.ICMPMessage{})
		require.ErrorIs(t, err, ale.ErrNoDestination)
		_, err = s.Accept(t.Context(), client, netip.AddrPort{})
		require.ErrorIs(t, err, ale.ErrNoSource)
		_, err = e.Accept(t.Context(), fwps.Incoming{Protocol: protocol, Local: client})
		require.ErrorIs(t, err, ale.ErrNoSource)
		_, _, _, err = s.ReceiveFrom(t.Context(), netip.AddrPort{})
		require.ErrorIs(t, err, ale.ErrNoSource)
		_, _, _, err = s.ReceiveICMP(t.Context(), netip.Addr{}, ale.ICMPMessage{})
		require.ErrorIs(t, err, ale.ErrNoSource)
		require.Empty(t, p.seen)
		s.Close()
	}
}
