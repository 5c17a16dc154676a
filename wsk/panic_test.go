package wsk_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A call in which the code of an embedder panics is completed, so that its socket can be
// closed by who recovers, and goes on until then.
func TestACallThatPanicsIsCompleted(t *testing.T) {
	broken := false
	engine := host.New(host.Options{OnDecision: func(*fwps.Incoming, *fwps.Decision) {
		if broken {
			panic("OnDecision")
		}
	}})
	p := wsk.NewProvider(wsk.Options{ALE: ale.New(ale.Options{Classifier: engine, Store: memstore.New(0)}), Process: wsk.Process{ID: 1},
		MaySetRecords: func(*wsk.Process) bool { panic("MaySetRecords") }})
	reg, npi := new(wsk.Registration), wsk.ProviderNPI{}
	require.Equal(t, ntstatus.Success, p.Register(&wsk.ClientNPI{Dispatch: &wsk.ClientDispatch{Version: wsk.Version10}}, reg))
	require.Equal(t, ntstatus.Success, reg.CaptureProviderNPI(wsk.NoWait, &npi))
	s := must(t, func(p *wsk.IRP) ntstatus.Status {
		return npi.Client.Socket(wsk.AFInet, wsk.SockDgram, wsk.IPProtoUDP, wsk.DatagramSocket, nil, nil, nil, 0, p)
	})
	to := netip.MustParseAddrPort("127.0.0.1:9")
	records := []wsk.ControlMessage{{Level: uint32(wsk.IPProtoIP), Type: wsk.IPWFPRedirectRecords, Data: make([]byte, 104)}}
	send := func(p *wsk.IRP) ntstatus.Status { return s.SendTo([]byte("x"), 0, to, nil, p) }
	must(t, func(p *wsk.IRP) ntstatus.Status { return s.Bind(loopback, 0, p) })
	for _, c := range []struct {
		where string
		call  func(*wsk.IRP) ntstatus.Status
	}{
		{"MaySetRecords", func(p *wsk.IRP) ntstatus.Status {
			return s.ControlSocket(wsk.Ioctl, wsk.SIOSetWFPConnectionRedirectRecords, 0, make([]byte, 104), nil, nil, p)
		}},
		{"MaySetRecords", func(p *wsk.IRP) ntstatus.Status { return s.SendTo([]byte("x"), 0, to, records, p) }},
		{"OnDecision", func(p *wsk.IRP) ntstatus.Status {
			return s.SendTo([]byte("x"), 0, netip.MustParseAddrPort("127.0.0.1:10"), nil, p)
		}},
		{"OnDecision", s.CloseSocket},
	} {
		broken = c.where == "OnDecision"
		irp, done := waited()
		require.PanicsWithValue(t, c.where, func() { c.call(irp) })
		require.False(t, (<-done).Status.Ok())
		irp.Free()
		broken = false
		irp, done = waited() // Else a goroutine sends, and may do the next call too, where nobody recovers.
		send(irp)
		if st := <-done; st.Status != ntstatus.FileForcedClosed {
			require.Equal(t, wsk.IoStatus{Information: 1}, st)
		}
		irp.Free()
	}
	reg.ReleaseProviderNPI()
	reg.Deregister()
}
