package proxy_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/calloutd/calloutd/examples/wsk-proxy"
	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/sdk/go/sockaddr"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/wsknet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Applications' connections to an echo, each redirected to the service once and
// once only, in each way in which a provider may complete IRPs.
func TestProxy(t *testing.T) {
	for name, debug := range map[string]wsk.Debug{"inline": {}, "always pend": {AlwaysPend: true}, "random order": {RandomOrder: true}} {
		t.Run(name, func(t *testing.T) {
			debug.Verifier = &wsk.Verifier{Report: func(v wsk.Violation) { t.Error(v) }}
			run(t, debug)
		})
	}
}

func run(t *testing.T, debug wsk.Debug) {
	engine, store := host.New(host.Options{}), memstore.New(0)
	provider := wsk.NewProvider(wsk.Options{ALE: ale.New(ale.Options{Classifier: engine, Store: store}),
		Process: wsk.Process{ID: 1000, AppID: "/bin/app"}, Debug: debug})
	reg, npi := new(wsk.Registration), wsk.ProviderNPI{}
	require.Equal(t, ntstatus.Success, provider.Register(&wsk.ClientNPI{Dispatch: &wsk.ClientDispatch{Version: wsk.Version10}}, reg))
	require.Equal(t, ntstatus.Success, reg.CaptureProviderNPI(wsk.NoWait, &npi))
	p, st := proxy.Start(npi.Client)
	require.Equal(t, ntstatus.Success, st)
	origin := echo(t)
	var redirected, own atomic.Int32
	redirectTo(t, engine, p.Addr(), &redirected, &own)

	connections := 300
	if testing.Short() {
		connections = 50
	}
	dialer := &wsknet.Dialer{Client: npi.Client}
	var apps sync.WaitGroup
	for range 10 {
		apps.Go(func() {
			for range connections / 10 {
				talk(t, dialer, origin)
			}
		})
	}
	apps.Wait()
	p.Stop()
	reg.ReleaseProviderNPI()
	reg.Deregister()
	require.EqualValues(t, connections, redirected.Load())
	require.EqualValues(t, connections, own.Load(), "each connection of the proxy is the callout's own")
	require.Zero(t, store.Len())
}

// redirectTo registers a callout that sends to the proxy what is not its own.
func redirectTo(t *testing.T, engine *host.Engine, to netip.AddrPort, redirected, own *atomic.Int32) {
	_, _, err := engine.RegisterCallout("redirect", fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		if c.State == redirect.RedirectedBySelf {
			own.Add(1)
			return nil
		}
		redirected.Add(1)
		v.Redirect, v.To, v.TargetPID = true, to, 1000
		v.Context = sockaddr.Append(sockaddr.Append(v.Context, c.In.Remote), c.In.Local)
		return nil
	}))
	require.NoError(t, err)
	require.NoError(t, engine.Update(func(p *fwpm.Policy) error {
		p.Callouts = append(p.Callouts, fwpm.Callout{ID: "redirect", Name: "redirect"})
		p.Filters = append(p.Filters, fwpm.Filter{ID: 1, Name: "redirect", Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutUnknown, Callout: "redirect"})
		return nil
	}))
}

// echo is the destination: it answers with what it was sent, when it has it all.
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
				got, _ := io.ReadAll(c) // A client that failed has said so itself.
				_, _ = c.Write(got)
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

func talk(t *testing.T, d *wsknet.Dialer, to string) {
	c, err := d.DialContext(t.Context(), "tcp", to)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.(*wsknet.Conn).Close()
	said := bytes.Repeat([]byte("carry me "), 2000)
	_, err = c.Write(said)
	if err == nil {
		err = c.(*wsknet.Conn).CloseWrite()
	}
	heard, rerr := io.ReadAll(c)
	if err != nil || rerr != nil || !bytes.Equal(said, heard) {
		t.Errorf("%v, %v, heard %d bytes of %d", err, rerr, len(heard), len(said))
	}
}
