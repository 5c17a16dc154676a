package localproxy_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/sdk/go/sockaddr"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/localproxy"
	"github.com/calloutd/calloutd/wsk/wsknet"
	"github.com/calloutd/calloutd/wsk/wsktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// A world has a callout that sends to a proxy what does not come from it.
type world struct {
	*wsktest.Client
	t    testing.TB
	open func(sealed []byte) (redirect.Records, error) // by the proxy; nil if it cannot
	left []byte                                        // by the callout, where that is no context

	mu   sync.Mutex
	said []string
}

func open(t testing.TB) *world {
	c := wsktest.Open(t, wsk.Debug{Verifier: wsktest.Verifier(t)})
	return &world{Client: c, t: t, open: c.ALE.Open}
}

func (w *world) start(start func(context.Context, localproxy.Options) (*localproxy.Proxy, error), withContext bool) *localproxy.Proxy {
	p, err := start(w.t.Context(), localproxy.Options{Client: w.Client.Client, Listen: loopback, Open: w.open, Release: w.ALE.Release, Logf: w.logf})
	require.NoError(w.t, err)
	w.t.Cleanup(p.Close)
	w.AtConnect(w.t, func(c *fwps.Call, v *fwps.Verdict) {
		if c.State == redirect.NotRedirected && c.In.Remote != p.Addr() {
			v.Redirect, v.To, v.TargetPID, v.Context = true, p.Addr(), 1000, w.left
			if withContext {
				v.Context = sockaddr.Append(sockaddr.Append(v.Context, c.In.Remote), c.In.Local)
			}
		}
	})
	return p
}

// accepts tells of each accept of a connection.
func (w *world) accepts() <-chan struct{} {
	accepted := make(chan struct{}, 8)
	_, _, err := w.Engine.RegisterCallout("accepts", fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		accepted <- struct{}{}
		return nil
	}))
	require.NoError(w.t, err)
	w.Add(w.t, fwpm.Filter{ID: 8, Name: "accepts", Layer: fwpm.LayerALEAuthRecvAcceptV4, Action: fwp.ActionCalloutTerminating, Callout: "accepts"})
	return accepted
}

func (w *world) logf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, fmt.Sprintf(format, args...))
}

// says waits until something was said of a destination.
func (w *world) says(to string) {
	w.t.Helper()
	require.Eventually(w.t, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return slices.ContainsFunc(w.said, func(s string) bool { return strings.HasPrefix(s, "forward: "+to+": ") })
	}, time.Minute, time.Millisecond)
}

func (w *world) dial(to string) *wsknet.Conn {
	c, err := (&wsknet.Dialer{Client: w.Client.Client}).DialContext(w.t.Context(), "tcp", to)
	require.NoError(w.t, err)
	return c.(*wsknet.Conn)
}

// ask connects and asks who answers there.
func (w *world) ask(addr string) *wsknet.Conn {
	c := w.dial(addr)
	_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(w.t, err)
	return c
}

func (w *world) get(addr string) (rep localproxy.Report) {
	c := w.ask(addr)
	defer c.Close()
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(w.t, err)
	defer r.Body.Close()
	require.True(w.t, r.Close)
	require.Equal(w.t, "application/json", r.Header.Get("Content-Type"))
	require.NoError(w.t, json.NewDecoder(r.Body).Decode(&rep))
	require.Equal(w.t, rep.Error != "", r.StatusCode == http.StatusBadGateway)
	return rep
}

func TestInspect(t *testing.T) {
	w := open(t)
	p := w.start(localproxy.Inspect, true)
	rep := w.get("198.51.100.7:80")
	require.Equal(t, "198.51.100.7:80", rep.OriginalDestination)
	require.Equal(t, "redirected-by-self", rep.RedirectState)
	require.Equal(t, 256, rep.ContextBytes)
	require.Equal(t, 1, rep.Hops)
	require.Positive(t, rep.RecordsBytes)
	require.Equal(t, localproxy.Process{PID: 1000, Program: "/bin/proxy"}, rep.Client)
	require.EqualValues(t, 7, rep.Filter)
	require.Empty(t, rep.Error)

	rep = w.get(p.Addr().String())
	require.Equal(t, "not-redirected", rep.RedirectState)
	require.Contains(t, rep.Error, "was not redirected here")
}

// Of records that do not open, such as another engine's, inspect says so.
func TestInspectOfRecordsThatDoNotOpen(t *testing.T) {
	w := open(t)
	w.open = func([]byte) (redirect.Records, error) { return nil, redirect.ErrForged }
	w.start(localproxy.Inspect, true)
	rep := w.get("198.51.100.7:80")
	require.Equal(t, redirect.ErrForged.Error(), rep.Error)
	require.Equal(t, "198.51.100.7:80", rep.OriginalDestination, "the context says that")
}

// Who is not the engine says of a connection what its context says.
func TestInspectOfSealedRecords(t *testing.T) {
	w := open(t)
	w.open = nil
	w.start(localproxy.Inspect, true)
	rep := w.get("198.51.100.7:80")
	require.Equal(t, "198.51.100.7:80", rep.OriginalDestination)
	require.Positive(t, rep.RecordsBytes)
	require.Zero(t, rep.Client)
	require.Empty(t, rep.Error)
}

func TestForward(t *testing.T) {
	w := open(t)
	origin, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer origin.Close()
	w.start(localproxy.Forward, true)
	const many = 50
	var wg sync.WaitGroup
	wg.Go(func() { // An echo that waits for the end of what it is sent.
		for range many {
			c, err := origin.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				got, _ := io.ReadAll(c)
				c.Write(got)
			})
		}
	})
	data := make([]byte, 100_000)
	for range many {
		wg.Go(func() {
			c := w.dial(origin.Addr().String())
			defer c.Close()
			_, err := c.Write(data)
			require.NoError(t, err)
			require.NoError(t, c.CloseWrite())
			got, err := io.ReadAll(c)
			require.NoError(t, err)
			require.Equal(t, data, got)
		})
	}
	wg.Wait()
}

// Who connects to a proxy itself is not served, and fills no disk with that.
func TestStrangersFillNoLog(t *testing.T) {
	const strangers = 200
	w := open(t)
	var lines enforcetest.Lines
	p, err := localproxy.Forward(t.Context(), localproxy.Options{Client: w.Client.Client, Listen: loopback, Logf: lines.Logf})
	require.NoError(t, err)
	for range strangers {
		c, err := net.Dial("tcp", p.Addr().String())
		if err == nil { // Else it was reset at once.
			_, err = io.ReadAll(c)
			c.Close()
		}
		require.Error(t, err)
	}
	p.Close()
	lines.Bounded(t, 1, strangers)
}

// What cannot be carried on is reset, and said why.
func TestForwardFailures(t *testing.T) {
	for name, c := range map[string]struct {
		context bool
		left    string
		to      string
		say     string
	}{
		"nobody at the origin":      {true, "", "127.0.0.1:1", "forward: 127.0.0.1:1: wsk: connect: STATUS_CONNECTION_REFUSED"},
		"no context":                {false, "", "198.51.100.7:80", "has no redirect context: wsk: query redirect context: STATUS_NOT_FOUND"},
		"a context of another kind": {false, "session 7", "198.51.100.7:80", "forward: redirect context does not begin with the original destination: sockaddr: 9 bytes, a SOCKADDR_STORAGE has 128"},
	} {
		t.Run(name, func(t *testing.T) {
			w := open(t)
			w.left = []byte(c.left)
			w.start(localproxy.Forward, c.context)
			conn := w.dial(c.to)
			defer conn.Close()
			_, err := io.ReadAll(conn)
			requireReset(t, err)
			w.mu.Lock()
			defer w.mu.Unlock()
			require.Len(t, w.said, 1)
			require.Contains(t, w.said[0], c.say)
		})
	}
}

// A proxy that could not do its work does not begin, and says why.
func TestOptionsThatAreMissing(t *testing.T) {
	w := open(t)
	for kind, start := range map[string]func(context.Context, localproxy.Options) (*localproxy.Proxy, error){
		"inspect": localproxy.Inspect, "forward": localproxy.Forward, "peek": localproxy.Peek,
	} {
		_, err := start(t.Context(), localproxy.Options{Listen: loopback})
		require.EqualError(t, err, kind+": wsk: listen: a wsk.Client is required")
		_, err = start(t.Context(), localproxy.Options{Client: w.Client.Client, Listen: loopback, Open: w.ALE.Open})
		require.EqualError(t, err, kind+": Options.Open takes references, so Options.Release is required too")
	}
}

// Close ends connections that are being carried.
func TestCloseEndsConnections(t *testing.T) {
	w := open(t)
	origin, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer origin.Close()
	p := w.start(localproxy.Forward, true)
	c := w.dial(origin.Addr().String())
	defer c.Abort()
	far, err := origin.Accept()
	require.NoError(t, err)
	defer far.Close()
	p.Close()
	_, err = io.ReadAll(c)
	requireReset(t, err)
}

// Shutdown lets connections end in order, and ends those that do not.
func TestShutdown(t *testing.T) {
	w := open(t)
	origin, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer origin.Close()
	p := w.start(localproxy.Forward, true)
	c := w.dial(origin.Addr().String())
	defer c.Close()
	far, err := origin.Accept()
	require.NoError(t, err)
	down := make(chan struct{})
	go func() { defer close(down); p.Shutdown(t.Context()) }()
	_, err = io.WriteString(far, "goodbye")
	require.NoError(t, err)
	require.NoError(t, far.(*net.TCPConn).CloseWrite())
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, "goodbye", string(got))
	require.NoError(t, c.CloseWrite())
	_, err = io.ReadAll(far)
	require.NoError(t, err)
	far.Close()
	c.Close()
	<-down
	_, err = (&wsknet.Dialer{Client: w.Client.Client}).DialContext(t.Context(), "tcp", origin.Addr().String())
	require.Error(t, err, "it listens no more")
}

func TestShutdownAnswersWhoAsks(t *testing.T) {
	w := open(t)
	asked, on := make(chan struct{}), make(chan struct{})
	w.open = func(sealed []byte) (redirect.Records, error) {
		close(asked)
		<-on
		return w.ALE.Open(sealed)
	}
	p := w.start(localproxy.Inspect, true)
	answered := make(chan localproxy.Report, 1)
	go func() { answered <- w.get("198.51.100.7:80") }()
	<-asked
	down := make(chan struct{})
	go func() { defer close(down); p.Shutdown(t.Context()) }()
	require.Eventually(t, func() bool {
		stranger, err := net.Dial("tcp", p.Addr().String())
		if err == nil {
			stranger.Close()
		}
		return err != nil
	}, time.Minute, time.Millisecond, "it listens no more")
	close(on)
	require.Equal(t, 1, (<-answered).Hops)
	<-down
}

// Close waits for who is being answered: what inspect uses for that may be closed next.
func TestCloseWaitsForWhoAsks(t *testing.T) {
	w := open(t)
	asked := make(chan struct{})
	var answered atomic.Bool
	w.open = func(sealed []byte) (redirect.Records, error) {
		close(asked)
		time.Sleep(100 * time.Millisecond)
		answered.Store(true)
		return w.ALE.Open(sealed)
	}
	p := w.start(localproxy.Inspect, true)
	c := w.ask("198.51.100.7:80")
	defer c.Abort()
	<-asked
	p.Close()
	require.True(t, answered.Load())
}

// Shutdown waits for a client that has not read its answer: a reset could take that away.
func TestShutdownWaitsForWhoReads(t *testing.T) {
	w := open(t)
	asked := make(chan struct{})
	w.open = func(sealed []byte) (redirect.Records, error) {
		close(asked)
		return w.ALE.Open(sealed)
	}
	p := w.start(localproxy.Inspect, true)
	c := w.ask("198.51.100.7:80")
	defer c.Close()
	<-asked
	down := make(chan struct{})
	go func() { defer close(down); p.Shutdown(t.Context()) }()
	select {
	case <-down:
		require.Fail(t, "it did not wait")
	case <-time.After(time.Second): // The server looks each half a second.
	}
	b, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Contains(t, string(b), `"redirected-by-self"`)
	require.NoError(t, c.Close())
	<-down
}

func TestShutdownHasAnEnd(t *testing.T) {
	for name, start := range map[string]func(context.Context, localproxy.Options) (*localproxy.Proxy, error){"inspect": localproxy.Inspect, "forward": localproxy.Forward} {
		t.Run(name, func(t *testing.T) {
			w := open(t)
			origin, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer origin.Close()
			p := w.start(start, true)
			accepted := w.accepts()
			c := w.dial(origin.Addr().String())
			defer c.Abort()
			<-accepted // Else its record stays with the engine for a while.

			_, err = io.WriteString(c, "GET / HT") // and no more
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			p.Shutdown(ctx)
		})
	}
}

// requireReset checks for a reset by the peer, which Windows numbers its own way.
func requireReset(t *testing.T, err error) {
	t.Helper()
	var errno syscall.Errno
	require.ErrorAs(t, err, &errno)
	require.Contains(t, []syscall.Errno{syscall.ECONNRESET, 10054}, errno)
}

// What one end resets, the other sees reset, also when the direction to it has
// ended in order before.
func TestForwardPassesResetsOn(t *testing.T) {
	for name, half := range map[string]bool{"open": false, "half closed": true} {
		t.Run(name, func(t *testing.T) {
			w := open(t)
			origin, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer origin.Close()
			w.start(localproxy.Forward, true)
			pair := func() (*wsknet.Conn, *net.TCPConn) {
				c := w.dial(origin.Addr().String())
				far, err := origin.Accept()
				require.NoError(t, err)
				return c, far.(*net.TCPConn)
			}

			c, far := pair()
			if half {
				require.NoError(t, far.CloseWrite())
				_, err = io.ReadAll(c)
				require.NoError(t, err)
			}
			c.Abort()
			_, err = io.ReadAll(far)
			requireReset(t, err)
			far.Close()
			w.says(origin.Addr().String())

			c, far = pair()
			if half {
				require.NoError(t, c.CloseWrite())
				_, err = io.ReadAll(far)
				require.NoError(t, err)
			}
			far.SetLinger(0)
			far.Close()
			_, err = io.ReadAll(c)
			requireReset(t, err)
			c.Abort()
		})
	}
}
