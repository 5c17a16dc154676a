package ale_test

import (
	"context"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwps"
)

// ALE-LAY-06, ALE-LAY-17: a socket that is used unbound is bound in its own family, and
// in that of its peer only while it has none.
func TestTheFamilyOfAnImplicitBind(t *testing.T) {
	for _, c := range []struct{ name, local, remote, want string }{
		{"an IPv4 socket", "0.0.0.0:0", "198.51.100.7:80", "ALE_BIND_REDIRECT_V4 0.0.0.0:0, ALE_RESOURCE_ASSIGNMENT_V4 0.0.0.0:0"},
		{"a dual-stack socket to an IPv4 address", "[::]:0", "[::ffff:198.51.100.7]:80", "ALE_BIND_REDIRECT_V6 [::]:0, ALE_RESOURCE_ASSIGNMENT_V6 [::]:0"},
		{"a socket with an address and no port", "192.0.2.1:0", "198.51.100.7:80", "ALE_BIND_REDIRECT_V4 192.0.2.1:0, ALE_RESOURCE_ASSIGNMENT_V4 192.0.2.1:0"},
		{"a socket without a family, IPv4", "", "198.51.100.7:80", "ALE_BIND_REDIRECT_V4 0.0.0.0:0, ALE_RESOURCE_ASSIGNMENT_V4 0.0.0.0:0"},
		{"a socket without a family, IPv6", "", "[2001:db8::7]:80", "ALE_BIND_REDIRECT_V6 [::]:0, ALE_RESOURCE_ASSIGNMENT_V6 [::]:0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := new(policy)
			e, _, _ := enforcer(p)
			in := fwps.Incoming{Protocol: fwps.ProtocolTCP}
			if c.local != "" {
				in.Local = netip.MustParseAddrPort(c.local)
			}
			s := e.NewSocket(in)
			defer s.Close()
			f, err := s.Connect(context.Background(), netip.MustParseAddrPort(c.remote), func(context.Context, ale.Target) (netip.AddrPort, error) { return client, nil })
			require.NoError(t, err)
			defer f.Close()
			var got string
			for _, in := range p.seen {
				if in.Flags&fwp.FlagIsImplicitBind == 0 {
					continue
				}
				if got != "" {
					got += ", "
				}
				got += in.Layer.String() + " " + in.Local.String()
			}
			require.Equal(t, c.want, got)
			asked := p.seen[2]
			require.Equal(t, asked.Remote.Addr().Is4(), asked.Local.Addr().Is4(), "%s at %s", asked.Local, asked.Layer)
		})
	}
}
