package wsk_test

import (
	"net"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// IRP-10: a connect that is cancelled while its data goes out is cancelled.
func TestConnectExIsCancelledWhileItSends(t *testing.T) {
	w := open(t, wsk.Debug{})
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1) })
	}}
	l, err := lc.Listen(t.Context(), "tcp4", loopback.String())
	require.NoError(t, err)
	defer l.Close()
	at := l.Addr().(*net.TCPAddr).AddrPort()
	s := w.socket(t, wsk.ConnectionSocket, nil)
	defer shut(t, s)
	must(t, func(p *wsk.IRP) ntstatus.Status {
		return s.ControlSocket(wsk.SetOption, wsk.SOSndBuf, wsk.SolSocket, []byte{1, 0, 0, 0}, nil, nil, p)
	})
	must(t, func(p *wsk.IRP) ntstatus.Status { return s.Bind(loopback, 0, p) })
	done := make(chan wsk.IoStatus, 1)
	irp := own(func(p *wsk.IRP, _ any) ntstatus.Status { done <- p.IoStatus(); return ntstatus.MoreProcessingRequired })
	defer irp.Free()
	require.Equal(t, ntstatus.Pending, s.ConnectEx(at, make([]byte, 65535), 0, irp))
	peer, err := l.Accept()
	require.NoError(t, err)
	defer peer.Close()
	_, err = peer.Read(make([]byte, 1)) // The data is on its way.
	require.NoError(t, err)
	irp.Cancel()
	require.Equal(t, wsk.IoStatus{Status: ntstatus.Cancelled}, <-done)
}
