package proxy_test

import (
	"bytes"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	proxy "github.com/calloutd/calloutd/examples/wsk-proxy"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/sdk/go/sockaddr"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/wsknet"
	"github.com/calloutd/calloutd/wsk/wsktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Ten thousand connections in all of applications to an echo, with the verifier on,
// each redirected to the service once and once only, in each way in which a
// provider may complete IRPs.
func TestProxy(t *testing.T) {
	for name, debug := range map[string]wsk.Debug{"inline": {}, "always pend": {AlwaysPend: true}, "random order": {RandomOrder: true}} {
		t.Run(name, func(t *testing.T) {
			debug.Verifier = wsktest.Verifier(t)
			run(t, wsktest.Open(t, debug))
		})
	}
}

func run(t *testing.T, c *wsktest.Client) {
	p, st := proxy.Start(c.Client)
	require.Equal(t, ntstatus.Success, st)
	origin := echo(t)
	var redirected, own atomic.Int32
	c.AtConnect(t, func(call *fwps.Call, v *fwps.Verdict) {
		if call.State == redirect.RedirectedBySelf {
			own.Add(1)
			return
		}
		redirected.Add(1)
		v.Redirect, v.To, v.TargetPID = true, p.Addr(), 1000
		v.Context = sockaddr.Append(sockaddr.Append(v.Context, call.In.Remote), call.In.Local)
	})

	connections := 3400
	if testing.Short() {
		connections = 100
	}
	dialer := &wsknet.Dialer{Client: c.Client}
	var apps sync.WaitGroup
	for part := range 10 {
		apps.Go(func() {
			for i := range connections / 10 {
				talk(t, dialer, origin, (part+i)%20 == 0)
			}
		})
	}
	apps.Wait()
	p.Stop()
	require.EqualValues(t, connections, redirected.Load())
	require.EqualValues(t, connections, own.Load(), "each connection of the proxy is the callout's own")
}

// echo is the destination.
func echo(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c) // A client that failed has said so itself.
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// talk has one connection's conversation. Most applications say little and end
// theirs with a reset: the ports of the others are not free again for a while.
func talk(t *testing.T, d *wsknet.Dialer, to string, orderly bool) {
	conn, err := d.DialContext(t.Context(), "tcp", to)
	if err != nil {
		t.Error(err)
		return
	}
	c := conn.(*wsknet.Conn)
	defer c.Close()
	said := []byte("carry me ")
	if !orderly {
		defer c.Abort()
		heard := make([]byte, len(said))
		_, err := c.Write(said)
		if _, rerr := io.ReadFull(c, heard); err != nil || rerr != nil || !bytes.Equal(said, heard) {
			t.Errorf("%v, %v, heard %q", err, rerr, heard)
		}
		return
	}
	said = bytes.Repeat(said, 2000)
	var writing sync.WaitGroup
	defer writing.Wait()
	writing.Go(func() {
		if _, err := c.Write(said); err != nil || c.CloseWrite() != nil {
			t.Errorf("writing: %v", err)
		}
	})
	if heard, err := io.ReadAll(c); err != nil || !bytes.Equal(said, heard) {
		t.Errorf("%v, heard %d bytes of %d", err, len(heard), len(said))
	}
}
