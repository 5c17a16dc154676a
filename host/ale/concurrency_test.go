package ale_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// asked counts how often a layer was asked about an endpoint.
type asked struct {
	mu sync.Mutex
	n  map[fwpm.LayerID]map[uint64]int
}

func (a *asked) decision(in *fwps.Incoming, _ *fwps.Decision) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.n == nil {
		a.n = map[fwpm.LayerID]map[uint64]int{}
	}
	if a.n[in.Layer] == nil {
		a.n[in.Layer] = map[uint64]int{}
	}
	a.n[in.Layer][in.EndpointID]++
}

// each is what was counted at a layer, by endpoint.
func (a *asked) each(l fwpm.LayerID) map[uint64]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.n[l]
}

// engine is an engine with one filter at each of the layers that calls c.
func engine(t testing.TB, on func(*fwps.Incoming, *fwps.Decision), c fwps.Callout, layers ...fwpm.LayerID) *host.Engine {
	e := host.New(host.Options{OnDecision: on})
	require.NoError(t, e.Update(func(p *fwpm.Policy) error {
		p.Callouts = []fwpm.Callout{{ID: "c"}}
		for i, l := range layers {
			p.Filters = append(p.Filters, fwpm.Filter{ID: fwpm.FilterID(i + 1), Name: "f", Layer: l, Action: fwp.ActionCalloutUnknown, Callout: "c"})
		}
		return nil
	}))
	_, _, err := e.RegisterCallout("c", c)
	require.NoError(t, err)
	return e
}

func tcpSocket(e *ale.Enforcer) *ale.Socket {
	s := e.NewSocket(fwps.Incoming{Protocol: fwps.ProtocolTCP, Local: netip.MustParseAddrPort("0.0.0.0:0")})
	s.OnImplicitBind(func(context.Context, netip.AddrPort) (netip.AddrPort, error) { return client, nil })
	return s
}

// SC-79, AMB-43: whoever is faster, the endpoint closes once and its bind is
// released once, and nobody waits for ever.
func TestCloseRacesTheCompletionOfWhatIsHeld(t *testing.T) {
	held := make(chan *fwps.PendedClassify)
	pends := fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		p, err := c.PendClassify()
		if err != nil {
			return err
		}
		go func() { held <- p }()
		return nil
	})
	var seen asked
	e := ale.New(ale.Options{Classifier: engine(t, seen.decision, pends, fwpm.LayerALEConnectRedirectV4), Store: memstore.New(0)})
	const rounds = 200
	for range rounds {
		s := tcpSocket(e)
		ended := make(chan error)
		go func() {
			f, err := s.Connect(context.Background(), origin, func(context.Context, ale.Target) (netip.AddrPort, error) { return client, nil })
			if f != nil {
				f.Close()
			}
			ended <- err
		}()
		p := <-held
		go p.Complete(&fwps.Verdict{Action: fwp.ActionPermit})
		s.Close()
		if err := <-ended; err != nil {
			require.ErrorIs(t, err, ntstatus.Cancelled)
		}
		_, err := s.Connect(t.Context(), origin, nil)
		require.ErrorIs(t, err, ntstatus.FileForcedClosed)
	}
	for _, l := range []fwpm.LayerID{fwpm.LayerALEEndpointClosureV4, fwpm.LayerALEResourceReleaseV4} {
		require.Len(t, seen.each(l), rounds, l)
		for _, n := range seen.each(l) {
			require.Equal(t, 1, n, l)
		}
	}
}

// Close does not wait for the function that connects, and the socket is taken down
// when that returns.
func TestCloseDuringTheRealConnect(t *testing.T) {
	var seen asked
	e := ale.New(ale.Options{Classifier: engine(t, seen.decision, fwps.CalloutFunc(nothing)), Store: memstore.New(0)})
	s := tcpSocket(e)
	begun, release, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		_, err := s.Connect(context.Background(), origin, func(ctx context.Context, _ ale.Target) (netip.AddrPort, error) {
			close(begun)
			<-release
			return client, ctx.Err()
		})
		ended <- err
	}()
	<-begun
	s.Close()
	require.Empty(t, seen.each(fwpm.LayerALEResourceReleaseV4))
	close(release)
	require.ErrorIs(t, <-ended, ntstatus.Cancelled)
	require.Len(t, seen.each(fwpm.LayerALEEndpointClosureV4), 1)
	require.Len(t, seen.each(fwpm.LayerALEResourceReleaseV4), 1)
}

func nothing(context.Context, *fwps.Call, *fwps.Verdict) error { return nil }

// Many redirected connections over a real listener at once: each one's context
// arrives on the connection that it belongs to.
func TestManyConnectionsMeetTheirRecords(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	target := ln.Addr().(*net.TCPAddr).AddrPort()
	redirects := fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action, v.Redirect, v.To, v.TargetPID = fwp.ActionPermit, true, target, 7
		v.Context = fmt.Appendf(v.Context, "%s", c.In.Remote)
		return nil
	})
	store := memstore.New(0)
	e := ale.New(ale.Options{Classifier: engine(t, nil, redirects, fwpm.LayerALEConnectRedirectV4), Store: store})

	const connections = 64
	var wg sync.WaitGroup
	wg.Go(func() {
		for range connections {
			conn, err := ln.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			wg.Go(func() { answer(t, e, conn) })
		}
	})
	for i := range connections {
		wg.Go(func() { ask(t, e, netip.AddrPortFrom(origin.Addr(), uint16(1000+i))) })
	}
	wg.Wait()
	require.Zero(t, store.Len())
}

// answer tells the other end which context arrived.
func answer(t *testing.T, e *ale.Enforcer, conn net.Conn) {
	defer conn.Close()
	f, err := e.Accept(context.Background(), fwps.Incoming{Protocol: fwps.ProtocolTCP,
		Local: conn.LocalAddr().(*net.TCPAddr).AddrPort(), Remote: conn.RemoteAddr().(*net.TCPAddr).AddrPort()})
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	if h := f.Records.Last(); h != nil {
		_, _ = conn.Write(h.Context)
	}
}

func ask(t *testing.T, e *ale.Enforcer, to netip.AddrPort) {
	var conn net.Conn
	f, err := tcpSocket(e).Connect(context.Background(), to, func(ctx context.Context, at ale.Target) (_ netip.AddrPort, err error) {
		if conn, err = new(net.Dialer).DialContext(ctx, "tcp4", at.Remote.String()); err != nil {
			return netip.AddrPort{}, err
		}
		return conn.LocalAddr().(*net.TCPAddr).AddrPort(), nil
	})
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	defer conn.Close()
	buf := make([]byte, 64)
	n, _ := conn.Read(buf)
	if string(buf[:n]) != to.String() {
		t.Errorf("the connection to %s brought %q", to, buf[:n])
	}
}

// A contextCallout counts the flow contexts that it has.
type contextCallout struct{ made, gone atomic.Int64 }

func (c *contextCallout) Classify(_ context.Context, call *fwps.Call, v *fwps.Verdict) error {
	v.Action = fwp.ActionPermit
	c.made.Add(1)
	return call.In.Flow.Associate(call.In.Layer, "c", 1, c, nil)
}

func (c *contextCallout) FlowDelete(fwpm.LayerID, fwpm.CalloutID, uint64) { c.gone.Add(1) }

// Datagrams of many goroutines to the same peers make one flow each, and what
// callouts associated with any flow is gone when the socket is.
func TestDatagramsRaceTheClose(t *testing.T) {
	c := new(contextCallout)
	e := ale.New(ale.Options{Classifier: engine(t, nil, c, fwpm.LayerALEFlowEstablishedV4), Store: memstore.New(0)})
	for range 20 {
		s := e.NewSocket(fwps.Incoming{Protocol: fwps.ProtocolUDP, Local: netip.MustParseAddrPort("10.0.0.5:5000")})
		var created [8]atomic.Int64
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := range 32 {
					to := i % len(created)
					_, _, first, err := s.SendTo(context.Background(), netip.AddrPortFrom(origin.Addr(), uint16(1+to)))
					if first {
						created[to].Add(1)
					}
					if err != nil && !errors.Is(err, ntstatus.FileForcedClosed) && !errors.Is(err, ntstatus.Cancelled) {
						t.Error(err)
					}
					if g == 3 && i == 24 {
						s.Close()
					}
				}
			})
		}
		wg.Wait()
		for i := range created {
			require.LessOrEqual(t, created[i].Load(), int64(1))
		}
	}
	require.Equal(t, c.made.Load(), c.gone.Load())
	require.NotZero(t, c.made.Load())
}

// ALE-LAY-12: while packets pass in both directions the policy changes, and changes
// back; once it blocks, the flow is aborted once and nothing passes any more.
func TestReauthorizationUnderTraffic(t *testing.T) {
	eng := engine(t, nil, fwps.CalloutFunc(nothing))
	e := ale.New(ale.Options{Classifier: eng, Store: memstore.New(0)})
	f, err := tcpSocket(e).Connect(t.Context(), origin, func(context.Context, ale.Target) (netip.AddrPort, error) { return client, nil })
	require.NoError(t, err)
	defer f.Close()
	var aborted atomic.Int64
	f.OnAbort(func() { aborted.Add(1) })
	set := func(a fwp.Action) {
		require.NoError(t, eng.Update(func(p *fwpm.Policy) error {
			p.Filters = []fwpm.Filter{{ID: 9, Name: "f", Layer: fwpm.LayerALEAuthConnectV4, Action: a}}
			return nil
		}))
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			blocked := false
			for {
				err := f.Reauthorize(context.Background())
				var b *ale.BlockedError
				blocked = blocked || errors.As(err, &b)
				if blocked && err == nil {
					t.Error("a packet passed after a block")
				}
				select {
				case <-stop:
					if f.Reauthorize(context.Background()) == nil {
						t.Error("a packet passed after the policy blocked")
					}
					return
				default:
				}
			}
		})
	}
	for range 50 {
		set(fwp.ActionPermit)
		set(fwp.ActionPermit)
	}
	set(fwp.ActionBlock)
	require.Error(t, f.Reauthorize(t.Context()))
	set(fwp.ActionPermit)
	close(stop)
	wg.Wait()
	require.EqualValues(t, 1, aborted.Load())
}
