package recorder_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/flight"
	"github.com/calloutd/calloutd/host/flight/recorder"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/journal"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// told answers what its journal is told, and fails for port 1.
func told(ctx context.Context, c *fwps.Call, v *fwps.Verdict) error {
	journal.From(ctx).Note(journal.Answer{Callout: "c", Call: "wall", Result: uint64(c.In.Layer)})
	v.Action = fwp.ActionPermit
	switch c.In.Remote.Port() {
	case 1:
		return errors.New("out of order")
	case 80: // To another host: AUTH_CONNECT is asked twice.
		v.Redirect, v.To = c.Connect != nil, netip.MustParseAddrPort("192.0.2.9:8080")
	}
	return nil
}

// enforcer has a callout at both layers of a connect and at accept.
func enforcer(t *testing.T, write func(*flight.Entry) error, failed func(error)) (*ale.Enforcer, *host.Engine) {
	t.Helper()
	e := host.New(host.Options{})
	_, _, err := e.RegisterCallout("c", fwps.CalloutFunc(told))
	require.NoError(t, err)
	require.NoError(t, e.Update(func(p *fwpm.Policy) error {
		p.Callouts = []fwpm.Callout{{ID: "c"}}
		for i, l := range []fwpm.LayerID{fwpm.LayerALEConnectRedirectV4, fwpm.LayerALEAuthConnectV4, fwpm.LayerALEAuthRecvAcceptV4} {
			p.Filters = append(p.Filters, fwpm.Filter{ID: fwpm.FilterID(i + 1), Name: l.String(), Layer: l, Action: fwp.ActionCalloutTerminating, Callout: "c"})
		}
		return nil
	}))
	r := recorder.New(recorder.Options{Classifier: e, Write: write, OnError: failed})
	return ale.New(ale.Options{Classifier: r, Store: memstore.New(0)}), e
}

func connect(t *testing.T, e *ale.Enforcer, port uint16) error {
	t.Helper()
	to := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), port)
	s := e.NewSocket(fwps.Incoming{Protocol: fwps.ProtocolTCP, AppID: "/a", Local: netip.MustParseAddrPort("0.0.0.0:0")})
	defer s.Close()
	s.SetPeerName("a.example")
	f, err := s.Connect(t.Context(), to, func(context.Context, ale.Target) (netip.AddrPort, error) {
		return netip.MustParseAddrPort("10.0.0.1:4000"), nil
	})
	if f != nil {
		f.Close()
	}
	return err
}

func TestAConnectionIsOneEntryWithAllItsCalloutsWereTold(t *testing.T) {
	var got []*flight.Entry
	e, _ := enforcer(t, func(n *flight.Entry) error { got = append(got, n); return nil }, nil)
	require.NoError(t, connect(t, e, 9))
	require.NoError(t, connect(t, e, 80))
	require.Error(t, connect(t, e, 1))
	_, err := e.Accept(t.Context(), fwps.Incoming{Protocol: fwps.ProtocolTCP, AppID: "/b", Local: netip.MustParseAddrPort("10.0.0.1:22"), Remote: netip.MustParseAddrPort("192.0.2.3:5")})
	require.NoError(t, err)

	require.Len(t, got, 4)
	layers := func(n *flight.Entry) (out []fwpm.LayerID) {
		for _, a := range n.Answers {
			out = append(out, fwpm.LayerID(a.Result))
		}
		return out
	}
	redirect, auth := fwpm.LayerALEConnectRedirectV4, fwpm.LayerALEAuthConnectV4
	require.Equal(t, "permit", got[0].Outcome.Action)
	require.Equal(t, "a.example", got[0].Host)
	require.Equal(t, "192.0.2.1:9", got[0].Outcome.Destination)
	require.Equal(t, []fwpm.LayerID{redirect, auth}, layers(got[0]))
	require.Equal(t, "redirect", got[1].Outcome.Action)
	require.Equal(t, "192.0.2.9:8080", got[1].Outcome.Destination)
	require.Equal(t, "192.0.2.1:80", got[1].Remote.String())
	require.Equal(t, []fwpm.LayerID{redirect, auth, auth}, layers(got[1]), "ALE-LAY-14: another host is asked about twice")
	require.Equal(t, "block", got[2].Outcome.Action)
	require.Contains(t, got[2].Outcome.Why, "out of order")
	require.Equal(t, "ALE_CONNECT_REDIRECT_V4", got[2].Outcome.Layer, "a callout that failed there is final")
	require.True(t, got[3].Inbound)
	require.Equal(t, "10.0.0.1:22", got[3].Outcome.Destination)
}

// Datagrams of one socket to several peers are decided at once: each has its own entry.
func TestFlowsOfOneSocketAreNotMixedUp(t *testing.T) {
	var got []*flight.Entry
	r := recorder.New(recorder.Options{Classifier: host.New(host.Options{}), Write: func(n *flight.Entry) error { got = append(got, n); return nil }})
	in := fwps.Incoming{Protocol: fwps.ProtocolUDP, EndpointID: 1, Local: netip.MustParseAddrPort("0.0.0.0:5000")}
	classify := func(l fwpm.LayerID, to string) {
		in := in
		in.Layer, in.Remote = l, netip.MustParseAddrPort(to)
		r.Classify(t.Context(), &in, new(fwps.Decision))
	}
	classify(fwpm.LayerALEConnectRedirectV4, "192.0.2.1:53")
	classify(fwpm.LayerALEConnectRedirectV6, "[::ffff:192.0.2.2]:53")
	classify(fwpm.LayerALEAuthConnectV4, "192.0.2.1:53")
	classify(fwpm.LayerALEAuthConnectV4, "192.0.2.2:53") // ALE-LAY-16
	require.Len(t, got, 2)
	require.Equal(t, "192.0.2.1:53", got[0].Remote.String())
	require.Equal(t, "[::ffff:192.0.2.2]:53", got[1].Remote.String(), "as the program sees it")
}

func TestAReauthorizationIsNoNewConnection(t *testing.T) {
	n := 0
	e, engine := enforcer(t, func(*flight.Entry) error { n++; return nil }, nil)
	s := e.NewSocket(fwps.Incoming{Protocol: fwps.ProtocolTCP, Local: netip.MustParseAddrPort("0.0.0.0:0")})
	defer s.Close()
	f, err := s.Connect(t.Context(), netip.MustParseAddrPort("192.0.2.1:9"), func(context.Context, ale.Target) (netip.AddrPort, error) {
		return netip.MustParseAddrPort("10.0.0.1:4000"), nil
	})
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, engine.Update(func(p *fwpm.Policy) error {
		p.Filters = append(p.Filters, fwpm.Filter{ID: 9, Name: "more", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionPermit})
		return nil
	}))
	require.NoError(t, f.Reauthorize(t.Context()))
	require.Equal(t, 1, n)
}

func TestTheFirstErrorOfWritingIsToldOfAndNothingIsBlockedForIt(t *testing.T) {
	var heard []string
	e, _ := enforcer(t, func(*flight.Entry) error { return errors.New("no room") }, func(err error) { heard = append(heard, err.Error()) })
	require.NoError(t, connect(t, e, 9))
	require.NoError(t, connect(t, e, 9))
	require.Equal(t, []string{"no room"}, heard)
}
