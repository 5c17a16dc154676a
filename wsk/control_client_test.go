package wsk_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// WSK-SOCK-02: what the list of transports has, sockets can be made of.
func TestTransportListIsOfSocketsThatCanBeMade(t *testing.T) {
	w := open(t, wsk.Debug{})
	list, n := make([]byte, 1024), 0
	require.Equal(t, ntstatus.Success, w.Client.ControlClient(wsk.TransportListQuery, nil, list, &n, nil))
	transports := wsk.ParseTransports(list[:n])
	require.Len(t, transports, 4)
	for _, x := range transports {
		require.Equal(t, wsk.Version10, x.Version)
		category := wsk.ConnectionSocket
		if x.SocketType == wsk.SockDgram {
			category = wsk.DatagramSocket
		}
		shut(t, must(t, func(p *wsk.IRP) ntstatus.Status {
			return w.Socket(x.Family, x.SocketType, x.Protocol, category, nil, nil, nil, 0, p)
		}))
	}
}

// What *returned was before is not taken for a size.
func TestACallThatFailsReturnsNoBytes(t *testing.T) {
	w := open(t, wsk.Debug{})
	s := w.socket(t, wsk.ConnectionSocket, nil)
	control := func(code uint32, irp *wsk.IRP) int {
		n := 77
		require.NotEqual(t, ntstatus.Success, s.ControlSocket(wsk.Ioctl, code, 0, nil, make([]byte, 4096), &n, irp))
		return n
	}
	withIRP := func(code uint32) (n int) {
		run(func(p *wsk.IRP) ntstatus.Status { n = control(code, p); return ntstatus.Pending })
		return n
	}
	check := func() {
		for _, code := range []uint32{wsk.SIOQueryWFPConnectionRedirectRecords, wsk.SIOWSKSetTCPSilentMode, 1} {
			require.Zero(t, control(code, nil), "%#x", code)
			require.Zero(t, withIRP(code), "%#x", code)
		}
		require.Zero(t, withIRP(wsk.SIOAddressListQuery))
	}
	check()
	shut(t, s)
	check()
	require.Zero(t, control(wsk.SIOAddressListQuery, nil))
	for _, code := range []uint32{wsk.TransportListChange, wsk.SetStaticEventCallbacks, 1} {
		n := 77
		require.NotEqual(t, ntstatus.Success, w.Client.ControlClient(code, nil, nil, &n, nil))
		require.Zero(t, n, "%d", code)
	}
}
