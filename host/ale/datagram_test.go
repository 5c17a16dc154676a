package ale_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

func datagrams() fwps.Incoming {
	return fwps.Incoming{Protocol: fwps.ProtocolUDP, Local: netip.MustParseAddrPort("10.0.0.1:5000"), ProcessID: 42, AppID: "/bin/app"}
}

// ALE-LAY-12: a policy that no longer allows a flow ends it, whoever began it and
// whichever way the next datagram goes.
func TestAPolicyChangeEndsDatagramFlows(t *testing.T) {
	other := netip.MustParseAddrPort("198.51.100.8:53")
	p := &policy{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){fwpm.LayerALEConnectRedirectV4: redirectTo(proxy, 7, 1)}}
	e, _, _ := enforcer(p)
	s := e.NewSocket(datagrams())
	defer s.Close()
	ways := map[string]func() (netip.AddrPort, error){
		"out":                    func() (to netip.AddrPort, err error) { to, _, _, err = s.SendTo(t.Context(), origin); return },
		"answer":                 func() (from netip.AddrPort, err error) { from, _, _, err = s.ReceiveFrom(t.Context(), proxy); return },
		"in":                     func() (from netip.AddrPort, err error) { from, _, _, err = s.ReceiveFrom(t.Context(), other); return },
		"answer to what came in": func() (to netip.AddrPort, err error) { to, _, _, err = s.SendTo(t.Context(), other); return },
	}
	for _, way := range []struct {
		name string
		at   netip.AddrPort
	}{{"out", proxy}, {"answer", origin}, {"in", other}, {"answer to what came in", other}} {
		at, err := ways[way.name]()
		require.NoError(t, err, way.name)
		require.Equal(t, way.at, at, way.name)
	}
	block := func(_ *fwps.Incoming, d *fwps.Decision) { d.Action = fwp.ActionBlock }
	p.at[fwpm.LayerALEAuthConnectV4], p.at[fwpm.LayerALEAuthRecvAcceptV4] = block, block
	p.generation++
	for name, way := range ways {
		var blocked *ale.BlockedError
		_, err := way()
		require.ErrorAs(t, err, &blocked, name)
	}
}

// ALE-LAY-11: a flow lives as long as datagrams come, whichever way. One that idled out
// begins anew, is nobody's answer any more, and its record goes with the next one.
func TestDatagramFlowsIdleOut(t *testing.T) {
	p := &policy{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){fwpm.LayerALEConnectRedirectV4: redirectTo(proxy, 7, 1)}}
	now, store := time.Unix(1_700_000_000, 0), memstore.New(0)
	e := ale.New(ale.Options{Classifier: p, Store: store, FlowIdle: time.Minute, Now: func() time.Time { return now }})
	s := e.NewSocket(datagrams())
	defer s.Close()
	send := func(to netip.AddrPort) (created bool) {
		_, _, created, err := s.SendTo(t.Context(), to)
		require.NoError(t, err)
		return created
	}
	receive := func() netip.AddrPort {
		from, _, _, err := s.ReceiveFrom(t.Context(), proxy)
		require.NoError(t, err)
		return from
	}
	require.True(t, send(origin))
	for range 2 {
		now = now.Add(time.Minute - 1)
		require.False(t, send(origin))
		now = now.Add(time.Minute - 1)
		require.Equal(t, origin, receive())
	}
	now = now.Add(time.Minute)
	require.Equal(t, proxy, receive())
	require.True(t, send(origin))
	now = now.Add(time.Minute)
	second, third := netip.MustParseAddrPort("198.51.100.8:53"), netip.MustParseAddrPort("198.51.100.9:53")
	require.True(t, send(second))
	require.Equal(t, 1, store.Len(), "of the one that lives")

	now = now.Add(time.Minute / 2)
	require.False(t, send(second))
	now = now.Add(time.Minute / 2)
	require.True(t, send(third), "and looks for idle ones, which it does once a minute")
	now = now.Add(time.Minute / 2)
	require.True(t, send(second))
}

// RED-UM-10: a proxy hears a socket that is bound to an address from there, and has the
// records of it.
func TestDatagramsComeFromWhereTheirSocketIsBound(t *testing.T) {
	for bound, from := range map[string]string{"10.0.0.1:5000": "10.0.0.1:5000", "0.0.0.0:5000": "127.0.0.1:5000"} {
		e, _, _ := enforcer(redirecting())
		in := datagrams()
		in.Local = netip.MustParseAddrPort(bound)
		s := e.NewSocket(in)
		defer s.Close()
		_, _, _, err := s.SendTo(t.Context(), origin)
		require.NoError(t, err)
		in.Local = proxy
		p := e.NewSocket(in)
		defer p.Close()
		_, f, _, err := p.ReceiveFrom(t.Context(), netip.MustParseAddrPort(from))
		require.NoError(t, err)
		require.Len(t, f.Records, 1, bound)
		require.Equal(t, origin, f.Original)
	}
}

// ALE-LAY-16, ALE-LAY-17: what comes to a dual-stack socket from an IPv4 address is asked
// about at the V4 layer, at an address of that family.
func TestDatagramsOfADualStackSocket(t *testing.T) {
	p := new(policy)
	e, _, _ := enforcer(p)
	in := datagrams()
	in.Local = netip.MustParseAddrPort("[::]:5000")
	s := e.NewSocket(in)
	defer s.Close()
	_, _, _, err := s.ReceiveFrom(t.Context(), netip.MustParseAddrPort("[::ffff:198.51.100.7]:53"))
	require.NoError(t, err)
	require.Equal(t, fwpm.LayerALEAuthRecvAcceptV4, p.seen[0].Layer)
	require.Equal(t, "0.0.0.0:5000", p.seen[0].Local.String())
	require.Equal(t, "198.51.100.7:53", p.seen[0].Remote.String())
}

// ALE-LAY-11: an echo reply is of the flow of its request, whatever the family; other
// messages have no identifier.
func TestEchoRepliesAreOfTheFlowOfTheirRequest(t *testing.T) {
	for _, c := range []struct {
		protocol       uint8
		peer           string
		request, reply uint8
	}{{fwps.ProtocolICMP, "198.51.100.7", 8, 0}, {fwps.ProtocolICMPv6, "2001:db8::7", 128, 129}} {
		e, _, _ := enforcer(new(policy))
		s := e.NewSocket(fwps.Incoming{Protocol: c.protocol})
		defer s.Close()
		peer := netip.MustParseAddr(c.peer)
		_, _, created, err := s.SendICMP(t.Context(), peer, ale.ICMPMessage{Type: c.request, ID: 1})
		require.NoError(t, err)
		require.True(t, created)
		_, _, created, err = s.ReceiveICMP(t.Context(), peer, ale.ICMPMessage{Type: c.reply, ID: 1})
		require.NoError(t, err)
		require.False(t, created, c.peer)
		_, _, created, err = s.ReceiveICMP(t.Context(), peer, ale.ICMPMessage{Type: c.reply, ID: 2})
		require.NoError(t, err)
		require.True(t, created, "another's")
	}
}

// WSK-RET-04: a closed socket hears nobody any more, not even the proxy of a flow that it had.
func TestAClosedSocketHearsNoAnswer(t *testing.T) {
	e, store, _ := enforcer(redirecting())
	s := e.NewSocket(datagrams())
	to, _, _, err := s.SendTo(t.Context(), origin)
	require.NoError(t, err)
	require.Equal(t, proxy, to)
	from, _, _, err := s.ReceiveFrom(t.Context(), proxy)
	require.NoError(t, err)
	require.Equal(t, origin, from)
	s.Close()
	_, f, _, err := s.ReceiveFrom(t.Context(), proxy)
	require.ErrorIs(t, err, ntstatus.FileForcedClosed)
	require.Nil(t, f)
	require.Equal(t, 1, store.Len(), "what the proxy did not take yet")
}

// CO-FLW-03: an abort ends a flow of datagrams, with what callouts keep of it and its
// record. The datagram that was decided on goes nowhere; the next one begins another flow.
func TestAnAbortEndsADatagramFlow(t *testing.T) {
	other := netip.MustParseAddrPort("198.51.100.8:53")
	p := redirecting()
	store := memstore.New(0)
	e := ale.New(ale.Options{Classifier: p, Store: store})
	s := e.NewSocket(datagrams())
	ways := map[string]func() (*ale.Flow, bool, error){
		"out": func() (*ale.Flow, bool, error) {
			_, f, created, err := s.SendTo(t.Context(), origin)
			return f, created, err
		},
		"in": func() (*ale.Flow, bool, error) {
			_, f, created, err := s.ReceiveFrom(t.Context(), other)
			return f, created, err
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			for _, at := range []fwpm.LayerID{fwpm.LayerALEAuthConnectV4, fwpm.LayerALEAuthRecvAcceptV4, fwpm.LayerALEFlowEstablishedV4} {
				aborts := at != fwpm.LayerALEAuthConnectV4 && name == "in" || at != fwpm.LayerALEAuthRecvAcceptV4 && name == "out"
				p.at[at] = func(in *fwps.Incoming, _ *fwps.Decision) { in.Flow.Abort() }
				f, created, err := way()
				delete(p.at, at)
				if aborts {
					require.ErrorIs(t, err, ale.ErrAborted, at)
					require.Nil(t, f)
				} else {
					require.NoError(t, err)
					require.True(t, created)
					f.Abort()
				}
			}
			first, created, err := way()
			require.NoError(t, err)
			require.True(t, created, "the former one has ended")
			again, created, err := way()
			require.NoError(t, err)
			require.False(t, created)
			require.Same(t, first, again)
			told := 0
			first.OnAbort(func() { told++ })
			first.Abort() // By its handle.
			require.Equal(t, 1, told)
			next, created, err := way()
			require.NoError(t, err)
			require.True(t, created)
			require.NotSame(t, first, next)
			first.Abort()
			_, created, err = way()
			require.NoError(t, err)
			require.False(t, created, "the former's end is over")

			// By a policy that changes, which does not refuse it.
			p.generation++
			p.at[fwpm.LayerALEAuthConnectV4] = func(in *fwps.Incoming, _ *fwps.Decision) { in.Flow.Abort() }
			p.at[fwpm.LayerALEAuthRecvAcceptV4] = p.at[fwpm.LayerALEAuthConnectV4]
			_, _, err = way()
			require.ErrorIs(t, err, ale.ErrAborted)
			delete(p.at, fwpm.LayerALEAuthConnectV4)
			delete(p.at, fwpm.LayerALEAuthRecvAcceptV4)
			_, created, err = way()
			require.NoError(t, err)
			require.True(t, created)
		})
	}
	s.Close()
	require.LessOrEqual(t, store.Len(), 1, "what the proxy did not take yet")
}

// keeps aborts the flow again when its context goes.
type keeps struct{ flow *fwps.Flow }

func (k *keeps) FlowDelete(fwpm.LayerID, fwpm.CalloutID, uint64) { k.flow.Abort() }

// CO-FLW-03: who hears that a flow ends may abort it.
func TestAFlowIsAbortedWhileItEnds(t *testing.T) {
	p := &policy{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){fwpm.LayerALEFlowEstablishedV4: func(in *fwps.Incoming, _ *fwps.Decision) {
		require.NoError(t, in.Flow.Associate(in.Layer, "test", 1, &keeps{in.Flow}, nil))
	}}}
	e, _, _ := enforcer(p)
	for name, end := range map[string]func(*ale.Socket, *ale.Flow){
		"the socket is closed": func(s *ale.Socket, _ *ale.Flow) { s.Close() },
		"it is aborted":        func(_ *ale.Socket, f *ale.Flow) { f.Abort() },
	} {
		t.Run(name, func(t *testing.T) {
			s := e.NewSocket(datagrams())
			defer s.Close()
			_, f, _, err := s.SendTo(t.Context(), origin)
			require.NoError(t, err)
			end(s, f)
		})
	}
}

// Who carries the datagrams of another host sends them from an address of its own: a proxy
// finds the record by that, and in it the host. The proxy's own connection is that host's.
func TestDatagramsThatAreCarriedBringTheirRecord(t *testing.T) {
	p := &policy{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){fwpm.LayerALEConnectRedirectV4: redirectTo(proxy, 7, 1)}}
	e, store, _ := enforcer(p)
	s := e.NewSocket(fwps.Incoming{Protocol: fwps.ProtocolUDP, Local: netip.MustParseAddrPort("192.0.2.9:5000")})
	_, f, _, err := s.SendTo(t.Context(), origin)
	require.NoError(t, err)
	from := netip.MustParseAddrPort("127.0.0.1:6000")
	f.SendsFrom(from)
	at := e.NewSocket(fwps.Incoming{Protocol: fwps.ProtocolUDP, Local: proxy, ProcessID: 7})
	_, in, _, err := at.ReceiveFrom(t.Context(), from)
	require.NoError(t, err)
	require.Equal(t, origin, in.Original)
	require.Equal(t, netip.MustParseAddr("192.0.2.9"), in.Records.Last().Client)
	require.Equal(t, netip.MustParseAddr("192.0.2.9"), (&fwps.Incoming{ProcessID: 7, Records: in.Records}).Client())
	s.Close()
	at.Close()
	require.Zero(t, store.Len(), "no record is left")
}
