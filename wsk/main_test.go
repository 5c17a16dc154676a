package wsk_test

import (
	"net/netip"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/wsktest"
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

// A world is a client with helpers for sockets.
type world struct{ *wsktest.Client }

func open(t testing.TB, debug wsk.Debug) *world { return &world{wsktest.Open(t, debug)} }

func build(debug wsk.Debug) (w *world, end func()) {
	c, end := wsktest.Register(debug)
	return &world{c}, end
}

// redirectTo sends what connects to port 80 to a local proxy.
func (w *world) redirectTo(t testing.TB, to netip.AddrPort, hop string) {
	w.AtConnect(t, func(c *fwps.Call, v *fwps.Verdict) {
		if c.In.Remote.Port() == 80 {
			v.Redirect, v.To, v.TargetPID = true, to, 1000
			v.Context, v.Record = append(v.Context, hop...), append(v.Record, hop...)
		}
	})
}

func run(call func(*wsk.IRP) ntstatus.Status) (wsk.IoStatus, *wsk.Socket) { return wsktest.Call(call) }

func must(t testing.TB, call func(*wsk.IRP) ntstatus.Status) *wsk.Socket {
	t.Helper()
	return wsktest.Must(t, call)
}

func (w *world) socket(t testing.TB, category wsk.Category, d wsk.Dispatch) *wsk.Socket {
	t.Helper()
	return must(t, func(p *wsk.IRP) ntstatus.Status {
		return w.Socket(wsk.AFInet, wsk.SockStream, wsk.IPProtoTCP, category, nil, d, nil, 0, p)
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
		return w.SocketConnect(wsk.SockStream, wsk.IPProtoTCP, netip.AddrPortFrom(netip.IPv4Unspecified(), 0), to, 0, nil, nil, nil, 0, p)
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
