package host_test

import (
	"context"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	layer  = fwpm.LayerALEAuthConnectV4
	permit = fwp.ActionPermit
	block  = fwp.ActionBlock
	ask    = fwp.ActionCalloutUnknown
)

func open(t *testing.T, e *host.Engine, o host.SessionOptions) *host.Session {
	t.Helper()
	s, err := e.Open(o)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

func filter(name string, a fwp.Action) fwpm.Filter {
	return fwpm.Filter{Name: name, Layer: layer, Action: a}
}

func calling(id fwpm.CalloutID) fwpm.Filter {
	return fwpm.Filter{Name: "calls " + string(id), Layer: layer, Action: ask, Callout: id}
}

// add adds a filter that must be right.
func add(t *testing.T, s *host.Session, f fwpm.Filter) fwpm.FilterID {
	t.Helper()
	id, err := s.FilterAdd(f)
	require.NoError(t, err)
	return id
}

func declare(t *testing.T, s *host.Session, ids ...fwpm.CalloutID) {
	t.Helper()
	for _, id := range ids {
		_, err := s.CalloutAdd(fwpm.Callout{ID: id, Name: string(id)})
		require.NoError(t, err)
	}
}

func incoming(l fwpm.LayerID) fwps.Incoming {
	local, remote := "10.0.0.5:4000", "198.51.100.7:443"
	if l.IsV6() {
		local, remote = "[2001:db8::5]:4000", "[2001:db8::7]:443"
	}
	return fwps.Incoming{Layer: l, Protocol: fwps.ProtocolTCP, Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote),
		AppID: "/usr/bin/curl", ProcessID: 42, UserID: 1000, UserKnown: true}
}

// decide classifies a connection at AUTH_CONNECT_V4.
func decide(t *testing.T, e *host.Engine) *fwps.Decision {
	in, d := incoming(layer), new(fwps.Decision)
	e.Classify(t.Context(), &in, d)
	return d
}

func answering(a fwp.Action) fwps.CalloutFunc {
	return func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error { v.Action = a; return nil }
}

// names lists the filters of a policy.
func names(e *host.Engine) []string {
	out := []string{}
	for _, f := range e.Policy().Filters {
		out = append(out, f.Name)
	}
	return out
}
