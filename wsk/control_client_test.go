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
