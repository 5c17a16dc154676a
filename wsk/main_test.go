package wsk_test

import (
	"context"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// withoutDescriptors makes the test binary run TestAcceptSurvivesWantOfDescriptors.
const withoutDescriptors = "WSK_TEST_WITHOUT_DESCRIPTORS"

func TestMain(m *testing.M) {
	if os.Getenv(withoutDescriptors) != "" {
		acceptWithoutDescriptors()
	}
	goleak.VerifyTestMain(m)
}

var (
	loopback    = netip.MustParseAddrPort("127.0.0.1:0")
	destination = netip.MustParseAddrPort("198.51.100.7:80")
)

// A world is an engine with a policy and a client of its provider.
type world struct {
	engine *host.Engine
	store  *memstore.Store
	client *wsk.Client
}

// open makes a world; at the end of the test the client deregisters, which
// hangs if anything is left.
func open(t testing.TB, debug wsk.Debug) *world {
	w, end := build(debug)
	t.Cleanup(end)
	return w
}

func build(debug wsk.Debug) (w *world, end func()) {
	w = &world{engine: host.New(host.Options{}), store: memstore.New(0)}
	e := ale.New(ale.Options{Classifier: w.engine, Store: w.store})
	p := wsk.NewProvider(wsk.Options{ALE: e, Process: wsk.Process{ID: 1000, AppID: "/bin/proxy"}, Debug: debug})
	reg, npi := new(wsk.Registration), wsk.ProviderNPI{}
	if st := p.Register(&wsk.ClientNPI{Dispatch: &wsk.ClientDispatch{Version: wsk.Version10}}, reg); !st.Ok() {
		panic(st)
	}
	if st := reg.CaptureProviderNPI(wsk.NoWait, &npi); !st.Ok() {
		panic(st)
	}
	w.client = npi.Client
	return w, func() { reg.ReleaseProviderNPI(); reg.Deregister() }
}

// redirectTo sends what connects to port 80 to a local proxy.
func (w *world) redirectTo(t testing.TB, to netip.AddrPort, hop string) {
	_, _, err := w.engine.RegisterCallout("redirect", fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		if c.In.Remote.Port() == 80 {
			v.Redirect, v.To, v.TargetPID = true, to, 1000
			v.Context, v.Record = append(v.Context, hop...), append(v.Record, hop...)
		}
		return nil
	}))
	require.NoError(t, err)
	require.NoError(t, w.engine.Update(func(p *fwpm.Policy) error {
		p.Callouts = append(p.Callouts, fwpm.Callout{ID: "redirect", Name: "redirect"})
		p.Filters = append(p.Filters, fwpm.Filter{ID: 1, Name: "redirect", Layer: fwpm.LayerALEConnectRedirectV4,
			Action: fwp.ActionCalloutUnknown, Callout: "redirect"})
		return nil
	}))
}

// run makes a call with an IRP of its own, waits for it, and gives the IRP back.
func run(call func(*wsk.IRP) ntstatus.Status) (wsk.IoStatus, *wsk.Socket) {
	irp, done := wsk.AllocateIRP(1), make(chan struct{})
	defer irp.Free()
	irp.SetCompletionRoutine(func(*wsk.IRP, any) ntstatus.Status {
		close(done)
		return ntstatus.MoreProcessingRequired
	}, nil, wsk.InvokeAlways)
	call(irp)
	<-done
	return irp.IoStatus(), irp.Socket()
}

// must is run for a call that has to succeed.
func must(t testing.TB, call func(*wsk.IRP) ntstatus.Status) *wsk.Socket {
	t.Helper()
	st, s := run(call)
	require.Equal(t, ntstatus.Success, st.Status)
	return s
}

func (w *world) socket(t testing.TB, category wsk.Category, d wsk.Dispatch) *wsk.Socket {
	t.Helper()
	return must(t, func(p *wsk.IRP) ntstatus.Status {
		return w.client.Socket(wsk.AFInet, wsk.SockStream, wsk.IPProtoTCP, category, nil, d, nil, 0, p)
	})
}

func (w *world) listen(t testing.TB) (*wsk.Socket, netip.AddrPort) {
	t.Helper()
	s := w.socket(t, wsk.ListenSocket, nil)
	must(t, func(p *wsk.IRP) ntstatus.Status { return s.Bind(loopback, 0, p) })
	var at netip.AddrPort
	must(t, func(p *wsk.IRP) ntstatus.Status { return s.GetLocalAddress(&at, p) })
	return s, at
}

func (w *world) dial(t testing.TB, to netip.AddrPort) *wsk.Socket {
	t.Helper()
	return must(t, func(p *wsk.IRP) ntstatus.Status {
		return w.client.SocketConnect(wsk.SockStream, wsk.IPProtoTCP, netip.AddrPortFrom(netip.IPv4Unspecified(), 0), to, 0, nil, nil, nil, 0, p)
	})
}

func accept(t testing.TB, l *wsk.Socket) *wsk.Socket {
	t.Helper()
	return must(t, func(p *wsk.IRP) ntstatus.Status { return l.Accept(0, nil, nil, nil, nil, p) })
}

func shut(t testing.TB, sockets ...*wsk.Socket) {
	t.Helper()
	for _, s := range sockets {
		must(t, s.CloseSocket)
	}
}
