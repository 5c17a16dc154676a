package ale_test

import (
	"context"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// A block says whose operation, where to or on what, and what blocked it.
func TestBlockedErrorSaysWhere(t *testing.T) {
	eng := engine(t, nil, fwps.CalloutFunc(nothing))
	require.NoError(t, eng.Update(func(p *fwpm.Policy) error {
		p.Filters = []fwpm.Filter{
			{ID: 1, Name: "no web", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionBlock},
			{ID: 2, Name: "no server", Layer: fwpm.LayerALEAuthListenV4, Action: fwp.ActionBlock},
		}
		return nil
	}))
	e := ale.New(ale.Options{Classifier: eng, Store: memstore.New(0)})
	s := e.NewSocket(fwps.Incoming{Protocol: fwps.ProtocolTCP, Local: netip.MustParseAddrPort("0.0.0.0:80"), ProcessID: 42, AppID: "/bin/app"})
	defer s.Close()
	_, err := s.Connect(t.Context(), origin, func(context.Context, ale.Target) (netip.AddrPort, error) { return client, nil })
	require.EqualError(t, err, `/bin/app[42] to 198.51.100.7:80 blocked at ALE_AUTH_CONNECT_V4 by filter 1 "no web" (ARB-01): the policy blocks it`)
	forger := e.NewSocket(fwps.Incoming{Protocol: fwps.ProtocolTCP, Local: netip.MustParseAddrPort("0.0.0.0:0"), ProcessID: 42, AppID: "/bin/a\nall is well\x1b[2J"})
	defer forger.Close()
	_, err = forger.Connect(t.Context(), origin, func(context.Context, ale.Target) (netip.AddrPort, error) { return client, nil })
	require.EqualError(t, err, `"/bin/a\nall is well\x1b[2J"[42] to 198.51.100.7:80 blocked at ALE_AUTH_CONNECT_V4 by filter 1 "no web" (ARB-01): the policy blocks it`, "a program's path is its own choice")
	nobody := e.NewSocket(fwps.Incoming{Protocol: fwps.ProtocolTCP})
	defer nobody.Close()
	_, err = nobody.Connect(t.Context(), origin, fromClient)
	require.EqualError(t, err, `unknown program to 198.51.100.7:80 blocked at ALE_AUTH_CONNECT_V4 by filter 1 "no web" (ARB-01): the policy blocks it`)
	err = s.Listen(t.Context(), func() error { return nil })
	require.EqualError(t, err, `/bin/app[42] on 0.0.0.0:80 blocked at ALE_AUTH_LISTEN_V4 by filter 2 "no server" (ARB-01): the policy blocks it`)
}
