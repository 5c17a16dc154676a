package wsknet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/net/nettest"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/wsknet"
	"github.com/calloutd/calloutd/wsk/wsktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open makes a client whose every use of IRPs is verified.
func open(t testing.TB) (*wsk.Client, *wsktest.Client) {
	c := wsktest.Open(t, wsk.Debug{Verifier: wsktest.Verifier(t)})
	return c.Client, c
}

func listen(t testing.TB, c *wsk.Client) *wsknet.Listener {
	l, err := wsknet.Listen(t.Context(), c, "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close(); l.Abort() })
	return l
}

func pair(t testing.TB, c *wsk.Client, l *wsknet.Listener) (dialed, accepted *wsknet.Conn) {
	a, err := (&wsknet.Dialer{Client: c}).DialContext(t.Context(), "tcp", l.Addr().String())
	require.NoError(t, err)
	b, err := l.Accept()
	require.NoError(t, err)
	return a.(*wsknet.Conn), b.(*wsknet.Conn)
}

func TestWithoutAClientThereIsAnErrorAndNoPanic(t *testing.T) {
	_, err := wsknet.Listen(t.Context(), nil, "127.0.0.1:0")
	require.EqualError(t, err, "wsk: listen: a wsk.Client is required")
	_, err = new(wsknet.Dialer).DialContext(t.Context(), "tcp", "localhost:1")
	require.EqualError(t, err, "wsk: dial tcp localhost:1: a wsk.Client is required")
	_, err = wsknet.Listen(t.Context(), new(wsk.Client), "127.0.0.1:0")
	require.ErrorIs(t, err, ntstatus.InvalidParameter)
	for _, to := range []string{"127.0.0.1:1", "localhost:1"} {
		_, err = (&wsknet.Dialer{Client: new(wsk.Client)}).DialContext(t.Context(), "tcp", to)
		require.ErrorIs(t, err, ntstatus.InvalidParameter, "one that no registration made")
	}
	registration := new(wsk.Registration)
	npi := &wsk.ClientNPI{Dispatch: &wsk.ClientDispatch{Version: wsk.Version10}}
	require.Equal(t, ntstatus.InvalidParameter, new(wsk.Provider).Register(npi, registration), "one that NewProvider did not make")
	_, err = new(wsknet.Listener).Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	require.NoError(t, new(wsknet.Listener).Close())
}

func TestListenSaysWhatItExpects(t *testing.T) {
	c, _ := open(t)
	for _, at := range []string{":0", "localhost:0", "127.0.0.1", ""} {
		_, err := wsknet.Listen(t.Context(), c, at)
		require.ErrorContains(t, err, fmt.Sprintf("wsk: listen %q: expected an address and a port, such as 127.0.0.1:0: ", at))
	}
}

func TestAClosedClientIsClosedAsInPackageNet(t *testing.T) {
	ctx := t.Context()
	c, closeClient, err := wsknet.NewClient(wsk.Options{ALE: wsktest.Open(t, wsk.Debug{}).ALE, Process: wsk.Process{ID: 1}})
	require.NoError(t, err)
	closeClient()
	_, err = wsknet.Listen(ctx, c, "127.0.0.1:0")
	require.ErrorIs(t, err, net.ErrClosed)
	for _, to := range []string{"127.0.0.1:1", "localhost:1"} {
		_, err = (&wsknet.Dialer{Client: c}).DialContext(ctx, "tcp", to)
		require.ErrorIs(t, err, net.ErrClosed, to)
		require.ErrorIs(t, err, ntstatus.DeviceNotReady, to)
	}
}

// What a callout holds, and what nobody ends by a context, does not hold up the close of
// its client.
func TestCloseOfAClientEndsWhoWaits(t *testing.T) {
	for layer, wait := range map[fwpm.LayerID]func(*wsk.Client) error{
		fwpm.LayerALEConnectRedirectV4: func(c *wsk.Client) error {
			_, err := (&wsknet.Dialer{Client: c}).DialContext(context.Background(), "tcp", "192.0.2.1:1")
			return err
		},
		fwpm.LayerALEBindRedirectV4: func(c *wsk.Client) error {
			_, err := wsknet.Listen(context.Background(), c, "127.0.0.1:0")
			return err
		},
	} {
		t.Run(layer.String(), func(t *testing.T) {
			held := make(chan *fwps.PendedClassify, 1)
			engine, unregister := asking(t, layer, func(_ context.Context, c *fwps.Call, _ *fwps.Verdict) error {
				p, err := c.PendClassify()
				held <- p
				return err
			})
			enforcer := ale.New(ale.Options{Classifier: engine, Store: memstore.New(0)})
			c, closeClient, err := wsknet.NewClient(wsk.Options{ALE: enforcer, Process: wsk.Process{ID: 1}, Debug: wsk.Debug{Verifier: wsktest.Verifier(t)}})
			require.NoError(t, err)
			waits := make(chan error, 1)
			go func() { waits <- wait(c) }()
			p := <-held
			require.ErrorIs(t, unregister(), ntstatus.DeviceBusy, "CO-REG-05")
			closeClient()
			err = <-waits
			require.ErrorIs(t, err, net.ErrClosed)
			require.ErrorContains(t, err, "the client was closed")
			for range 2 { // Too late, and once more.
				p.Complete(&fwps.Verdict{Action: fwp.ActionPermit})
			}
			require.NoError(t, unregister())
			require.Zero(t, enforcer.LiveHops())
			closeClient()
		})
	}
}

// asking is an engine that asks a callout at a layer.
func asking(t *testing.T, l fwpm.LayerID, callout fwps.CalloutFunc) (e *host.Engine, unregister func() error) {
	e = host.New(host.Options{})
	require.NoError(t, e.Update(func(p *fwpm.Policy) error {
		p.Callouts = []fwpm.Callout{{ID: "asked"}}
		p.Filters = []fwpm.Filter{{ID: 1, Name: "all", Layer: l, Action: fwp.ActionCalloutUnknown, Callout: "asked"}}
		return nil
	}))
	_, unregister, err := e.RegisterCallout("asked", callout)
	require.NoError(t, err)
	return e, unregister
}

// connected is a connection that an engine decides about. What ends its client waits for it.
func connected(t *testing.T, e *host.Engine) (dialed, accepted *wsknet.Conn, end func()) {
	c, closeClient, err := wsknet.NewClient(wsk.Options{ALE: ale.New(ale.Options{Classifier: e, Store: memstore.New(0)}), Process: wsk.Process{ID: 1}})
	require.NoError(t, err)
	l, err := wsknet.Listen(t.Context(), c, "127.0.0.1:0")
	require.NoError(t, err)
	dialed, accepted = pair(t, c, l)
	require.NoError(t, l.Close())
	return dialed, accepted, closeClient
}

// A callout that is asked again about a connection, and takes its time, does not hold up
// its close. What was written before that still arrives.
func TestCloseEndsWhatIsAskedAgain(t *testing.T) {
	var again atomic.Bool
	asked := make(chan struct{})
	engine, _ := asking(t, fwpm.LayerALEAuthConnectV4, func(ctx context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		if c.In.Flags&fwp.FlagIsReauthorize == 0 || again.Swap(true) {
			return nil
		}
		close(asked)
		<-ctx.Done()
		return ctx.Err()
	})
	a, b, end := connected(t, engine)
	defer end()
	defer b.Abort()
	_, err := io.WriteString(a, "before")
	require.NoError(t, err)
	require.NoError(t, engine.Update(func(p *fwpm.Policy) error { p.Filters[0].Name = "another"; return nil }))
	wrote := make(chan error, 1)
	go func() { _, err := io.WriteString(a, "after"); wrote <- err }()
	<-asked
	require.NoError(t, a.Close())
	require.ErrorIs(t, <-wrote, net.ErrClosed)
	got, err := io.ReadAll(b)
	require.NoError(t, err)
	require.Equal(t, "before", string(got))
}

// What is left of a connection after its close gives nobody anything, so that no callout is
// asked about it again, which could hold the socket when the peer is long gone.
func TestNobodyIsAskedAboutAClosedConnection(t *testing.T) {
	var asked atomic.Bool
	engine, _ := asking(t, fwpm.LayerALEAuthConnectV4, func(ctx context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		if c.In.Flags&fwp.FlagIsReauthorize == 0 {
			return nil
		}
		asked.Store(true)
		<-ctx.Done()
		return ctx.Err()
	})
	a, b, end := connected(t, engine)
	require.NoError(t, engine.Update(func(p *fwpm.Policy) error { p.Filters[0].Name = "another"; return nil }))
	require.NoError(t, a.Close())
	require.NoError(t, b.Close())
	end()
	require.False(t, asked.Load())
}

// Package net's own suite for connections.
func TestIsANetConn(t *testing.T) {
	c, _ := open(t)
	l := listen(t, c)
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		a, b := pair(t, c, l)
		return a, b, func() { a.Abort(); b.Abort() }, nil
	})
}

// What was written before Close arrives, however slowly the peer reads.
func TestCloseLosesNothing(t *testing.T) {
	c, _ := open(t)
	l := listen(t, c)
	a, b := pair(t, c, l)
	data := make([]byte, 1<<20)
	_, err := a.Write(data)
	require.NoError(t, err)
	require.NoError(t, a.Close())
	got, err := io.ReadAll(b)
	require.NoError(t, err)
	require.Len(t, got, len(data))
	require.NoError(t, b.Close())
}

// Nor when the peer had closed its side before, and Close has nobody to wait for.
func TestCloseAfterThePeersEndLosesNothing(t *testing.T) {
	for name, read := range map[string]func(*wsknet.Conn) error{
		"seen by Read": func(c *wsknet.Conn) error { _, err := io.ReadAll(c); return err },
		"seen by a relay": func(c *wsknet.Conn) error {
			client, _ := open(t)
			d, far := pair(t, client, listen(t, client))
			defer far.Abort()
			defer d.Abort()
			_, err := io.Copy(d, c)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := open(t)
			l := listen(t, c)
			a, b := pair(t, c, l)
			require.NoError(t, a.CloseWrite())
			require.NoError(t, read(b))
			data := make([]byte, 1<<20)
			_, err := b.Write(data)
			require.NoError(t, err)
			require.NoError(t, b.Close())
			l.Wait() // Although the other side is not closed.
			got, err := io.ReadAll(a)
			require.NoError(t, err)
			require.Len(t, got, len(data))
			require.NoError(t, a.Close())
		})
	}
}

// Nor when something was read, and a deadline has passed: the peer may go on, and is not reset.
func TestCloseAfterADeadlineIsInOrder(t *testing.T) {
	c, _ := open(t)
	l := listen(t, c)
	a, b := pair(t, c, l)
	_, err := b.Write([]byte("x"))
	require.NoError(t, err)
	_, err = a.Read(make([]byte, 1))
	require.NoError(t, err)
	require.NoError(t, a.SetReadDeadline(time.Unix(1, 0)))
	require.NoError(t, a.Close())
	for range 3 {
		time.Sleep(5 * time.Millisecond) // A reset would arrive.
		_, err := b.Write([]byte("late"))
		require.NoError(t, err)
	}
	require.NoError(t, b.Close())
}

func TestCloseEndsWhatOthersDo(t *testing.T) {
	c, _ := open(t)
	l := listen(t, c)
	a, b := pair(t, c, l)
	defer b.Abort()
	var wg sync.WaitGroup
	started := make(chan struct{}, 2)
	wg.Go(func() {
		started <- struct{}{}
		_, err := a.Read(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)
	})
	wg.Go(func() {
		started <- struct{}{}
		_, err := io.Copy(io.Discard, a)
		require.ErrorIs(t, err, net.ErrClosed)
	})
	<-started
	<-started
	require.NoError(t, a.Close())
	wg.Wait()
	_, err := a.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)
	for _, set := range []func(time.Time) error{a.SetDeadline, a.SetReadDeadline, a.SetWriteDeadline} {
		require.ErrorIs(t, set(time.Time{}), net.ErrClosed)
	}
	require.NoError(t, a.Close(), "a second close")
}

func TestAbortResets(t *testing.T) {
	c, _ := open(t)
	l := listen(t, c)
	a, b := pair(t, c, l)
	a.Abort()
	_, err := b.Read(make([]byte, 1))
	requireReset(t, err)
	require.Error(t, b.CloseWrite())
	b.Abort()
	_, err = b.RedirectRecords(t.Context())
	require.ErrorIs(t, err, net.ErrClosed)
}

// A listener waits for those that it accepted and that wait for their peers.
func TestListenerWaitsForLingering(t *testing.T) {
	c, _ := open(t)
	l := listen(t, c)
	a, b := pair(t, c, l)
	require.NoError(t, b.Close())
	waited := make(chan struct{})
	go func() { l.Wait(); close(waited) }()
	select {
	case <-waited:
		t.Error("the peer has not closed")
	case <-time.After(20 * time.Millisecond):
	}
	require.NoError(t, a.Close())
	select {
	case <-waited:
	case <-time.After(time.Minute):
		t.Error("the peer has closed")
	}
}

// Connections that were closed and wait for a peer that does not close are ended
// by the listener's Abort.
func TestListenerAbortEndsLingering(t *testing.T) {
	c, _ := open(t)
	l := listen(t, c)
	a, b := pair(t, c, l)
	require.NoError(t, b.Close())
	n, err := a.Read(make([]byte, 1))
	require.Zero(t, n)
	require.ErrorIs(t, err, io.EOF)
	l.Abort()
	for err == nil || errors.Is(err, io.EOF) { // Until the reset arrives.
		_, err = a.Write([]byte("x"))
	}
	a.Abort()
}

func TestHalfClose(t *testing.T) {
	c, _ := open(t)
	l := listen(t, c)
	a, b := pair(t, c, l)
	require.NoError(t, a.CloseWrite())
	require.NoError(t, a.CloseWrite())
	_, err := b.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	_, err = b.Write([]byte("still here"))
	require.NoError(t, err)
	require.NoError(t, b.Close())
	got, err := io.ReadAll(a)
	require.NoError(t, err)
	require.Equal(t, "still here", string(got))
	require.NoError(t, a.Close())
}

// Who ends a connection that the peer has reset hears of that, although a write has told
// of it before.
func TestHalfCloseAfterAReset(t *testing.T) {
	c, _ := open(t)
	l := listen(t, c)
	a, b := pair(t, c, l)
	b.Abort()
	for err := error(nil); err == nil; {
		_, err = a.Write([]byte("x"))
	}
	err := a.CloseWrite()
	a.Abort()
	require.ErrorIs(t, err, syscall.ECONNRESET)
}

func TestAcceptAfterClose(t *testing.T) {
	c, _ := open(t)
	l := listen(t, c)
	done := make(chan error)
	go func() { _, err := l.Accept(); done <- err }()
	time.Sleep(10 * time.Millisecond) // It waits by then.
	require.NoError(t, l.Close())
	require.ErrorIs(t, <-done, net.ErrClosed)
	_, err := l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestErrors(t *testing.T) {
	c, engine := open(t)
	d := &wsknet.Dialer{Client: c}
	_, err := wsknet.Listen(t.Context(), c, "nowhere")
	require.ErrorContains(t, err, "wsk: listen")
	_, err = wsknet.Listen(t.Context(), c, "192.0.2.99:0")
	require.EqualError(t, err, "wsk: bind: STATUS_INVALID_ADDRESS_COMPONENT")
	require.ErrorIs(t, err, syscall.EADDRNOTAVAIL)
	_, err = d.DialContext(t.Context(), "tcp", "127.0.0.1:1")
	require.EqualError(t, err, "wsk: connect: STATUS_CONNECTION_REFUSED")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = d.DialContext(ctx, "tcp", "127.0.0.1:1")
	require.ErrorIs(t, err, context.Canceled)

	refuse := func(string, string, syscall.RawConn) error { return io.ErrNoProgress }
	_, err = (&wsknet.Dialer{Client: c, Control: refuse}).DialContext(t.Context(), "tcp", "127.0.0.1:1")
	require.ErrorIs(t, err, io.ErrNoProgress)

	l := listen(t, c)
	a, b := pair(t, c, l)
	_, err = b.RedirectRecords(t.Context())
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = b.OriginalDestination(t.Context())
	require.ErrorIs(t, err, fs.ErrNotExist)
	a.Abort()
	b.Abort()

	engine.Add(t, fwpm.Filter{ID: 1, Name: "no", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionBlock})
	_, err = d.DialContext(t.Context(), "tcp", l.Addr().String())
	require.ErrorIs(t, err, fs.ErrPermission)
	var denial *ale.BlockedError
	require.ErrorAs(t, err, &denial, "it says which filter")
	require.EqualValues(t, 1, denial.Filter)
	require.ErrorContains(t, err, `blocked at ALE_AUTH_CONNECT_V4 by filter 1 "no"`)

	engine.Add(t, fwpm.Filter{ID: 2, Name: "no server", Layer: fwpm.LayerALEAuthListenV4, Action: fwp.ActionBlock})
	_, err = wsknet.Listen(t.Context(), c, "127.0.0.1:0")
	require.ErrorContains(t, err, `blocked at ALE_AUTH_LISTEN_V4 by filter 2 "no server"`)
}

// ALE-LAY-12: a policy that no longer allows a connection ends it.
func TestPolicyChangeEndsConnection(t *testing.T) {
	c, engine := open(t)
	l := listen(t, c)
	a, b := pair(t, c, l)
	_, err := a.Write([]byte("x"))
	require.NoError(t, err)
	engine.Add(t, fwpm.Filter{ID: 1, Name: "no", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionBlock})
	_, err = a.Write([]byte("y"))
	require.ErrorIs(t, err, fs.ErrPermission)
	var blocked *ale.BlockedError
	require.ErrorAs(t, err, &blocked, "it says what ended it")
	require.Equal(t, "no", blocked.Name)
	_, err = a.Read(make([]byte, 1))
	require.ErrorAs(t, err, &blocked)
	_, err = io.ReadAll(b)
	requireReset(t, err)
	a.Abort()
	b.Abort()
}

// ALE-LAY-12, also for one whose bytes are relayed, which had begun before.
func TestPolicyChangeEndsRelay(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("package net moves the bytes there, and asks once")
	}
	for name, change := range map[string]func(in, out *wsktest.Client){
		"of what comes in": func(in, _ *wsktest.Client) {
			in.Add(t, fwpm.Filter{ID: 1, Name: "no", Layer: fwpm.LayerALEAuthRecvAcceptV4, Action: fwp.ActionBlock})
		},
		"of what goes out": func(_, out *wsktest.Client) {
			out.Add(t, fwpm.Filter{ID: 1, Name: "no", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionBlock})
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, engine := open(t)
			from, in := pair(t, c, listen(t, c))
			other, others := open(t) // With a policy of its own.
			out, to := pair(t, other, listen(t, other))
			done := make(chan error)
			go func() { _, err := io.Copy(out, in); done <- err }()
			_, err := from.Write([]byte("x"))
			require.NoError(t, err)
			_, err = io.ReadFull(to, make([]byte, 1))
			require.NoError(t, err)
			change(engine, others)
			_, err = from.Write([]byte("y")) // It was let go by another layer.
			require.NoError(t, err)
			require.ErrorIs(t, <-done, fs.ErrPermission)
			in.Abort()
			out.Abort()
			from.Abort()
			rest, err := io.ReadAll(to)
			requireReset(t, err)
			require.Empty(t, rest)
			to.Abort()
		})
	}
}

// Nothing here relies on a call that ends before it returns (AMB-04).
func TestCallsThatPend(t *testing.T) {
	for name, debug := range map[string]wsk.Debug{"in order": {AlwaysPend: true}, "in any order": {RandomOrder: true}} {
		t.Run(name, func(t *testing.T) {
			debug.Verifier = wsktest.Verifier(t)
			c := wsktest.Open(t, debug).Client
			l := listen(t, c)
			a, b := pair(t, c, l)
			_, err := a.Write([]byte("x"))
			require.NoError(t, err)
			require.NoError(t, a.Close())
			got, err := io.ReadAll(b)
			require.NoError(t, err)
			require.Equal(t, "x", string(got))
			_, err = b.RedirectRecords(t.Context())
			require.ErrorIs(t, err, fs.ErrNotExist)
			require.NoError(t, b.Close())
			x, y := pair(t, c, l)
			x.Abort()
			y.Abort()
		})
	}
}

// An IPv6 listener takes IPv4 too, as package net's do.
func TestDualStack(t *testing.T) {
	c, _ := open(t)
	l, err := wsknet.Listen(t.Context(), c, "[::]:0")
	if err != nil && !nettest.SupportsIPv6() {
		require.Empty(t, os.Getenv("CI"), "CI has IPv6: %v", err)
		t.Skip(err)
	}
	require.NoError(t, err)
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	for _, to := range []string{"tcp 127.0.0.1", "tcp ::1", "tcp ::ffff:127.0.0.1", "tcp4 127.0.0.1", "tcp4 ::ffff:127.0.0.1", "tcp6 ::1"} {
		network, a, _ := strings.Cut(to, " ")
		x, err := (&wsknet.Dialer{Client: c}).DialContext(t.Context(), network, netip.AddrPortFrom(netip.MustParseAddr(a), port).String())
		require.NoError(t, err, to)
		y, err := l.Accept()
		require.NoError(t, err)
		x.(*wsknet.Conn).Abort()
		y.(*wsknet.Conn).Abort()
	}
}

// The kernel takes this host for no address: who may not reach that does not so either.
func TestDialToNoAddressIsDecidedAsWhereItGoes(t *testing.T) {
	c, engine := open(t)
	for i, of := range []struct {
		at, blocked string
		layer       fwpm.LayerID
		forms       []string
	}{
		{"127.0.0.1", "127.0.0.0/8", fwpm.LayerALEAuthConnectV4, []string{"127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1", "::ffff:0.0.0.0"}},
		{"::1", "::1/128", fwpm.LayerALEAuthConnectV6, []string{"::1", "::"}},
	} {
		l, err := net.Listen("tcp", netip.AddrPortFrom(netip.MustParseAddr(of.at), 0).String())
		require.NoError(t, err)
		defer l.Close()
		port := l.Addr().(*net.TCPAddr).AddrPort().Port()
		dial := func(form string) error {
			x, err := (&wsknet.Dialer{Client: c}).DialContext(t.Context(), "tcp", netip.AddrPortFrom(netip.MustParseAddr(form), port).String())
			if err == nil {
				x.(*wsknet.Conn).Abort()
			}
			return err
		}
		for _, form := range of.forms {
			require.NoError(t, dial(form), form)
		}
		engine.Add(t, fwpm.Filter{ID: fwpm.FilterID(i + 1), Name: "not here", Layer: of.layer, Action: fwp.ActionBlock, Conditions: []fwpm.Condition{
			{Field: fwpm.ConditionIPRemoteAddress, Match: fwp.MatchEqual, Value: fwp.Mask(netip.MustParsePrefix(of.blocked))}}})
		for _, form := range of.forms {
			require.ErrorIs(t, dial(form), syscall.EACCES, form)
		}
	}
}

// The end of a dial's context ends what it waits for, here a callout, and is its error.
func TestDialEndsWithItsContext(t *testing.T) {
	c, engine := open(t)
	held, asked := false, func() {}
	_, _, err := engine.Engine.RegisterCallout("holds", fwps.CalloutFunc(func(ctx context.Context, _ *fwps.Call, _ *fwps.Verdict) error {
		held = true
		asked()
		<-ctx.Done()
		return ctx.Err()
	}))
	require.NoError(t, err)
	engine.Add(t, fwpm.Filter{ID: 1, Name: "holds", Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutUnknown, Callout: "holds"})
	d := &wsknet.Dialer{Client: c}
	for limit := 10 * time.Millisecond; !held; limit *= 2 { // A busy machine may take longer to come to the callout.
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		_, err = d.DialContext(ctx, "tcp", "127.0.0.1:1")
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, context.Canceled)
	}
	require.EqualError(t, err, "wsk: connect: STATUS_CANCELLED: context deadline exceeded")
	ctx, cancel := context.WithCancel(t.Context())
	asked = cancel
	_, err = d.DialContext(ctx, "tcp", "127.0.0.1:1")
	require.ErrorIs(t, err, context.Canceled)
}

// A redirect context may be longer than most are.
func TestLongRedirectContext(t *testing.T) {
	c, engine := open(t)
	l := listen(t, c)
	long := strings.Repeat("c", redirect.MaxBlob)
	engine.AtConnect(t, func(call *fwps.Call, v *fwps.Verdict) {
		v.Redirect, v.To, v.TargetPID = true, l.Addr().(*net.TCPAddr).AddrPort(), 1000
		v.Context = append(v.Context, long...)
	})
	a, err := (&wsknet.Dialer{Client: c}).DialContext(t.Context(), "tcp", "198.51.100.7:80")
	require.NoError(t, err)
	b, err := l.Accept()
	require.NoError(t, err)
	got, err := b.(*wsknet.Conn).RedirectContext(t.Context())
	require.NoError(t, err)
	require.Equal(t, long, string(got))
	a.(*wsknet.Conn).Abort()
	b.(*wsknet.Conn).Abort()
}

// requireReset checks for a reset by the peer, which Windows numbers its own way.
func requireReset(t *testing.T, err error) {
	t.Helper()
	var errno syscall.Errno
	require.ErrorAs(t, err, &errno)
	require.Contains(t, []syscall.Errno{syscall.ECONNRESET, 10054}, errno)
}

// A name is resolved, and each of its addresses is tried.
func TestDialByName(t *testing.T) {
	c, _ := open(t)
	l := listen(t, c)
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	for _, network := range []string{"tcp", "tcp4"} {
		conn, err := (&wsknet.Dialer{Client: c}).DialContext(t.Context(), network, net.JoinHostPort("localhost", port))
		require.NoError(t, err)
		require.Equal(t, l.Addr().String(), conn.RemoteAddr().String())
		conn.(*wsknet.Conn).Abort()
		accepted, err := l.Accept()
		require.NoError(t, err)
		accepted.(*wsknet.Conn).Abort()
	}
}

// A resolver that does not answer is asked no longer when the dial's context ends.
func TestDialEndsWhileItsNameIsLookedUp(t *testing.T) {
	resolver := net.DefaultResolver
	defer func() { net.DefaultResolver = resolver }()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 8)
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(asked context.Context, _, _ string) (net.Conn, error) {
		cancel()
		<-asked.Done()
		ended <- asked.Err()
		return nil, asked.Err()
	}}
	d := &wsknet.Dialer{Client: wsktest.Open(t, wsk.Debug{}).Client}
	_, err := d.DialContext(ctx, "tcp", "slow.example:80")
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, context.Canceled, <-ended, "not its own time-out")
}

func TestDialRefusesWhatIsNoAddress(t *testing.T) {
	c, _ := open(t)
	for addr, want := range map[string]string{
		"tcp 127.0.0.1":         "missing port in address",
		"tcp :80":               "missing host",
		"udp 127.0.0.1:80":      "unknown network udp",
		"tcp6 127.0.0.1:80":     "not an address of the network",
		"tcp4 [::1]:80":         "not an address of the network",
		"tcp localhost:no-such": "resolve localhost",
		"tcp 127.0.0.1:70000":   "address 127.0.0.1:70000: no port",
	} {
		network, addr, _ := strings.Cut(addr, " ")
		_, err := (&wsknet.Dialer{Client: c}).DialContext(t.Context(), network, addr)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "wsk: dial "+network+" "+addr)
	}
}
