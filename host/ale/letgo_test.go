package ale_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

var pinged = ale.ICMPMessage{Type: 8, ID: 1}

// goes are the ways in which something is let go from a socket, or let in, and what each
// begins with that can be refused. went hears of what the socket's owner would then do.
func goes(s *ale.Socket, went func()) map[string]func(context.Context) error {
	connect := func(context.Context, ale.Target) (netip.AddrPort, error) { went(); return client, nil }
	return map[string]func(context.Context) error{
		"connect": func(ctx context.Context) error { _, err := s.Connect(ctx, origin, connect); return err },
		"bind": func(ctx context.Context) error {
			_, err := s.Bind(ctx, client, func(context.Context, netip.AddrPort) (netip.AddrPort, error) { went(); return client, nil })
			return err
		},
		"listen":       func(ctx context.Context) error { return s.Listen(ctx, func() error { went(); return nil }) },
		"accept":       func(ctx context.Context) error { _, err := s.Accept(ctx, proxy, client); return err },
		"send":         func(ctx context.Context) error { _, _, _, err := s.SendTo(ctx, origin); return err },
		"receive":      func(ctx context.Context) error { _, _, _, err := s.ReceiveFrom(ctx, origin); return err },
		"send ICMP":    func(ctx context.Context) error { _, _, _, err := s.SendICMP(ctx, origin.Addr(), pinged); return err },
		"receive ICMP": func(ctx context.Context) error { _, _, _, err := s.ReceiveICMP(ctx, origin.Addr(), pinged); return err },
	}
}

// socketOf is a socket for one of the ways.
func socketOf(e *ale.Enforcer, way string) *ale.Socket {
	in := app().in
	switch way {
	case "send", "receive":
		in.Protocol = fwps.ProtocolUDP
	case "send ICMP", "receive ICMP":
		in.Protocol = fwps.ProtocolICMP
	}
	return e.NewSocket(in)
}

// WSK-RET-04: of a closed socket nothing is let go, and no layer is asked about it.
func TestNothingIsLetGoFromAClosedSocket(t *testing.T) {
	p := new(policy)
	e, _, _ := enforcer(p)
	for way := range goes(nil, nil) {
		s := socketOf(e, way)
		s.Close()
		err := goes(s, func() { t.Error(way, "went on") })[way](t.Context())
		require.ErrorIs(t, err, ntstatus.FileForcedClosed, way)
	}
	require.Empty(t, p.seen)
}

// A block at any layer that can block, a callout that failed and a call that ended end
// the operation there, whatever it is.
func TestNothingIsLetGoThatALayerEnds(t *testing.T) {
	var ctx context.Context
	var cancel context.CancelFunc
	type at = map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision)
	block := func(_ *fwps.Incoming, d *fwps.Decision) { d.Action = fwp.ActionBlock }
	fails := func(_ *fwps.Incoming, d *fwps.Decision) { d.Action, d.Faulted = fwp.ActionBlock, true }
	ends := func(*fwps.Incoming, *fwps.Decision) { cancel() }
	asksAgain := func(_ *fwps.Incoming, d *fwps.Decision) { d.Reclassify = true; cancel() }
	out := []string{"connect", "send", "send ICMP"}
	in := []string{"accept", "receive", "receive ICMP"}
	for _, c := range []struct {
		layer fwpm.LayerID
		does  func(*fwps.Incoming, *fwps.Decision)
		ways  []string
	}{
		{fwpm.LayerALEBindRedirectV4, fails, append(out, "bind")},
		{fwpm.LayerALEBindRedirectV4, ends, append(out, "bind")},
		{fwpm.LayerALEResourceAssignmentV4, block, append(out, "bind")},
		{fwpm.LayerALEResourceAssignmentV4, ends, append(out, "bind")},
		{fwpm.LayerALEResourceAssignmentV4, asksAgain, append(out, "bind")},
		{fwpm.LayerALEAuthListenV4, block, []string{"listen"}},
		{fwpm.LayerALEAuthListenV4, ends, []string{"listen"}},
		{fwpm.LayerALEConnectRedirectV4, fails, out},
		{fwpm.LayerALEConnectRedirectV4, ends, out},
		{fwpm.LayerALEAuthConnectV4, block, out},
		{fwpm.LayerALEAuthConnectV4, ends, out},
		{fwpm.LayerALEAuthRecvAcceptV4, block, in},
		{fwpm.LayerALEAuthRecvAcceptV4, ends, in},
	} {
		for _, way := range c.ways {
			ctx, cancel = context.WithCancel(t.Context())
			p := &policy{at: at{c.layer: c.does}}
			e, store, _ := enforcer(p)
			s := socketOf(e, way)
			err := goes(s, func() { t.Error(way, "went on after", c.layer) })[way](ctx)
			if ctx.Err() != nil {
				require.ErrorIs(t, err, context.Canceled, "%s %s", way, c.layer)
			} else {
				var blocked *ale.BlockedError
				require.ErrorAs(t, err, &blocked, "%s %s", way, c.layer)
				require.Equal(t, c.layer, blocked.Layer)
			}
			authorized := 0
			for i := range p.seen {
				if l := p.seen[i].Layer; l == fwpm.LayerALEAuthConnectV4 || l == fwpm.LayerALEAuthRecvAcceptV4 {
					authorized++
				}
				require.NotEqual(t, fwpm.LayerALEFlowEstablishedV4, p.seen[i].Layer, "%s %s", way, c.layer)
			}
			s.Close()
			closures := 0
			for i := range p.seen {
				if p.seen[i].Layer == fwpm.LayerALEEndpointClosureV4 {
					closures++
				}
			}
			require.Equal(t, authorized, closures, "ALE-LAY-07: %s %s", way, c.layer)
			require.Zero(t, store.Len())
			cancel()
		}
	}
}

// deletes counts the contexts that ended.
type deletes int

func (d *deletes) FlowDelete(fwpm.LayerID, fwpm.CalloutID, uint64) { *d++ }

// What callouts associated with a flow that comes to nothing ends with it: it is refused
// later, or its record cannot be kept.
func TestAFlowThatIsNotLetGoEnds(t *testing.T) {
	for name, blocks := range map[string]bool{"refused": true, "no room for the record": false} {
		for _, way := range []string{"connect", "send", "send ICMP"} {
			var gone deletes
			p := redirecting()
			p.at[fwpm.LayerALEAuthConnectV4] = func(in *fwps.Incoming, d *fwps.Decision) {
				require.NoError(t, in.Flow.Associate(in.Layer, "test", 1, &gone, nil))
				if blocks {
					d.Action = fwp.ActionBlock
				}
			}
			e := ale.New(ale.Options{Classifier: p, Store: full{memstore.New(0)}})
			s := socketOf(e, way)
			err := goes(s, func() { t.Error(way, "went on") })[way](t.Context())
			var blocked *ale.BlockedError
			require.ErrorAs(t, err, &blocked, "%s: %s", way, name)
			require.EqualValues(t, 1, gone, "%s: %s", way, name)
			s.Close()
		}
	}
}

// A socket that is closed while its first datagram is decided has no flow any more.
func TestASocketIsClosedWhileItsFlowBegins(t *testing.T) {
	for _, way := range []string{"send", "receive", "send ICMP", "receive ICMP"} {
		p := redirecting()
		e, _, _ := enforcer(p)
		s := socketOf(e, way)
		p.at[fwpm.LayerALEFlowEstablishedV4] = func(*fwps.Incoming, *fwps.Decision) { s.Close() }
		require.ErrorIs(t, goes(s, nil)[way](t.Context()), ntstatus.Cancelled, way)
	}
}

// SC-79: a socket that is closed while a callout decides where it goes has an end.
func TestASocketIsClosedBeforeItIsAuthorized(t *testing.T) {
	for _, way := range []string{"connect", "send", "send ICMP"} {
		p := new(policy)
		e, _, _ := enforcer(p)
		s := socketOf(e, way)
		p.at = map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){fwpm.LayerALEConnectRedirectV4: func(*fwps.Incoming, *fwps.Decision) { s.Close() }}
		require.ErrorIs(t, goes(s, func() { t.Error(way, "went on") })[way](t.Context()), ntstatus.Cancelled, way)
		end := p.seen[len(p.seen)-2:]
		require.Equal(t, fwpm.LayerALEEndpointClosureV4, end[0].Layer, way)
		require.Equal(t, origin.Addr(), end[0].Remote.Addr())
		require.Equal(t, fwpm.LayerALEResourceReleaseV4, end[1].Layer, way)
	}
}

// What connect says of a datagram socket is said, too.
func TestADatagramSocketThatDoesNotConnect(t *testing.T) {
	e, _, _ := enforcer(new(policy))
	s := e.NewSocket(datagrams())
	defer s.Close()
	unreachable := errors.New("network is unreachable")
	_, err := s.Connect(t.Context(), origin, func(context.Context, ale.Target) (netip.AddrPort, error) { return client, unreachable })
	require.ErrorIs(t, err, unreachable)
}

// ALE-LAY-07: an assignment whose bind fails is released, once; one that was not asked is not.
func TestABindThatFailsReleasesWhatItWasAssigned(t *testing.T) {
	inUse := errors.New("address already in use")
	for _, c := range []struct{ want, asked string }{
		{"127.0.0.1:80", "ALE_BIND_REDIRECT_V4 ALE_RESOURCE_ASSIGNMENT_V4 ALE_RESOURCE_RELEASE_V4"},
		{"127.0.0.1:0", "ALE_BIND_REDIRECT_V4"},
	} {
		p := new(policy)
		e, _, _ := enforcer(p)
		s := e.NewSocket(fwps.Incoming{Protocol: fwps.ProtocolTCP})
		_, err := s.Bind(t.Context(), netip.MustParseAddrPort(c.want), func(context.Context, netip.AddrPort) (netip.AddrPort, error) { return netip.AddrPort{}, inUse })
		require.ErrorIs(t, err, inUse)
		s.Close()
		var asked string
		for i := range p.seen {
			asked += " " + p.seen[i].Layer.String()
		}
		require.Equal(t, " "+c.asked, asked)
	}
}

// A listen that fails is said to have, and owes no end.
func TestAListenThatFails(t *testing.T) {
	p := new(policy)
	e, _, _ := enforcer(p)
	s := e.NewSocket(fwps.Incoming{Protocol: fwps.ProtocolTCP, Local: proxy})
	inUse := errors.New("address already in use")
	require.ErrorIs(t, s.Listen(t.Context(), func() error { return inUse }), inUse)
	s.Close()
	require.Len(t, p.seen, 1)
	require.Equal(t, fwpm.LayerALEAuthListenV4, p.seen[0].Layer)
}

// RED-SIO-03: bytes that no record is behind are not given to a proxy.
func TestAPromiseThatIsNotKeptIsNotMade(t *testing.T) {
	var err error
	p := &policy{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){fwpm.LayerALEConnectRedirectV4: func(in *fwps.Incoming, _ *fwps.Decision) {
		_, err = in.Pending.Format(1)
	}}}
	e := ale.New(ale.Options{Classifier: p, Store: full{memstore.New(0)}})
	_, connected := e.Connect(t.Context(), app())
	require.NoError(t, connected)
	require.ErrorIs(t, err, redirect.ErrFull)
}
