package wsk_test

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// CO-FLW-03: a callout aborts the flow when it is established, which is before the
// socket has its connection.
func TestFlowThatIsAbortedWhenItIsEstablishedIsReset(t *testing.T) {
	w := open(t, wsk.Debug{})
	_, _, err := w.Engine.RegisterCallout("aborts", fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		w.Engine.FlowAbort(c.In.Flow)
		return nil
	}))
	require.NoError(t, err)
	w.Add(t, fwpm.Filter{ID: 1, Name: "aborts", Layer: fwpm.LayerALEFlowEstablishedV4, Action: fwp.ActionCalloutUnknown, Callout: "aborts"})

	t.Run("that connects", func(t *testing.T) {
		ln, err := net.Listen("tcp4", loopback.String())
		require.NoError(t, err)
		defer ln.Close()
		s := w.socket(t, wsk.ConnectionSocket, nil)
		defer shut(t, s)
		must(t, func(p *wsk.IRP) ntstatus.Status { return s.Bind(loopback, 0, p) })
		to := ln.Addr().(*net.TCPAddr).AddrPort()
		st, _ := run(func(p *wsk.IRP) ntstatus.Status { return s.Connect(to, 0, p) })
		require.Equal(t, wsk.IoStatus{Status: ntstatus.ConnectionAborted}, st)
		st, _ = run(func(p *wsk.IRP) ntstatus.Status { return s.Send([]byte("x"), 0, p) })
		require.Equal(t, ntstatus.FileForcedClosed, st.Status, "WSK-RET-04")
		peer, err := ln.Accept()
		require.NoError(t, err)
		defer peer.Close()
		_, err = peer.Read(make([]byte, 1))
		require.Error(t, err)
	})
	t.Run("that is made in one call", func(t *testing.T) {
		ln, err := net.Listen("tcp4", loopback.String())
		require.NoError(t, err)
		defer ln.Close()
		to := ln.Addr().(*net.TCPAddr).AddrPort()
		st, s := run(func(p *wsk.IRP) ntstatus.Status {
			return w.SocketConnect(wsk.SockStream, wsk.IPProtoTCP, netip.AddrPortFrom(netip.IPv4Unspecified(), 0), to, 0, nil, nil, nil, 0, p)
		})
		require.Equal(t, wsk.IoStatus{Status: ntstatus.ConnectionAborted}, st)
		require.Nil(t, s)
	})
	t.Run("of datagrams", func(t *testing.T) {
		s := must(t, func(p *wsk.IRP) ntstatus.Status {
			return w.Socket(wsk.AFInet, wsk.SockDgram, wsk.IPProtoUDP, wsk.DatagramSocket, nil, nil, nil, 0, p)
		})
		defer shut(t, s)
		must(t, func(p *wsk.IRP) ntstatus.Status { return s.Bind(loopback, 0, p) })
		st, _ := run(func(p *wsk.IRP) ntstatus.Status {
			return s.SendTo([]byte("x"), 0, netip.MustParseAddrPort("127.0.0.1:9"), nil, p)
		})
		require.Equal(t, wsk.IoStatus{Status: ntstatus.ConnectionAborted}, st)
	})
	t.Run("that is accepted", func(t *testing.T) {
		l, at := w.listen(t)
		defer shut(t, l)
		peer, dialed := net.Dial("tcp4", at.String()) // It may hear of the reset already.
		a := accept(t, l)
		defer shut(t, a)
		st, _ := run(func(p *wsk.IRP) ntstatus.Status { return a.Receive(make([]byte, 1), 0, p) })
		require.Equal(t, ntstatus.FileForcedClosed, st.Status)
		if dialed == nil {
			defer peer.Close()
			_, dialed = peer.Read(make([]byte, 1))
		}
		require.Error(t, dialed)
	})
}
