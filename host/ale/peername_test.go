package ale_test

import (
	"context"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// FWPM_CONDITION_PEER_NAME: what the socket's owner says goes before what the host
// knows of the address, and a name that nobody knows is no field (BFE-CND-06).
func TestWhatAPeerIsCalled(t *testing.T) {
	known := map[netip.Addr]string{origin.Addr(): "known.example"}
	for _, c := range []struct{ name, want, says, to string }{
		{"known to the host", "known.example", "", "198.51.100.7:80"},
		{"known as IPv4", "known.example", "", "[::ffff:198.51.100.7]:80"},
		{"said by the owner", "said.example", "said.example", "198.51.100.7:80"},
		{"said, and not known", "said.example", "said.example", "198.51.100.8:80"},
		{"not known", "", "", "198.51.100.8:80"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := new(policy)
			e := ale.New(ale.Options{Classifier: p, Store: memstore.New(0), PeerNames: func(_, a netip.Addr) *fwps.PeerNames {
				if name := known[a]; name != "" {
					return &fwps.PeerNames{Names: []string{name}}
				}
				return nil
			}})
			in := app().in
			to := netip.MustParseAddrPort(c.to)
			in.Local = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
			if to.Addr().Is6() {
				in.Local = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
			}
			s := e.NewSocket(in)
			defer s.Close()
			s.SetPeerName(c.says)
			var told string
			f, err := s.Connect(context.Background(), to, func(_ context.Context, to ale.Target) (netip.AddrPort, error) {
				told = to.PeerName
				return client, nil
			})
			require.NoError(t, err)
			defer f.Close()
			require.Equal(t, c.want, told)
			asked := 0
			for i := range p.seen {
				in := &p.seen[i]
				if !in.Layer.IsConnectRedirect() && in.Layer.ForFamily(false) != fwpm.LayerALEAuthConnectV4 {
					continue
				}
				asked++
				v, ok := in.Other[fwpm.ConditionPeerName]
				require.Equal(t, c.want, v.Text, in.Layer)
				require.Equal(t, c.want != "", ok, in.Layer)
			}
			require.Equal(t, 2, asked)
		})
	}
}
