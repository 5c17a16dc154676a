package wsk_test

import (
	"bytes"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}
func (b *lockedBuffer) String() string { b.mu.Lock(); defer b.mu.Unlock(); return b.b.String() }

// A trace has each call with its arguments and result, and each completion.
func TestTrace(t *testing.T) {
	w := open(t, wsk.Debug{})
	var out lockedBuffer
	stop := wsk.Trace(&out, w.Client.Client)
	l, at := w.listen(t)
	a := w.dial(t, at)
	b := accept(t, l)
	must(t, func(p *wsk.IRP) ntstatus.Status { return a.Send([]byte("hello"), wsk.FlagNoDelay, p) })
	run(func(p *wsk.IRP) ntstatus.Status {
		return b.ControlSocket(wsk.Ioctl, wsk.SIOQueryWFPConnectionRedirectRecords, 0, nil, make([]byte, 64), nil, p)
	})
	run(func(p *wsk.IRP) ntstatus.Status { return b.ControlSocket(wsk.GetOption, 0x7777, 6, nil, nil, nil, p) })
	require.Equal(t, ntstatus.InvalidParameter, a.Listen(nil))
	shut(t, a, b, l)
	stop()
	var discard netip.AddrPort
	run(func(p *wsk.IRP) ntstatus.Status { return a.GetLocalAddress(&discard, p) })

	// Ports differ from run to run, and a call that pends may come after its completion.
	got := strings.Split(strings.TrimSpace(regexp.MustCompile(`:[1-9]\d*,`).ReplaceAllString(out.String(), ":PORT,")), "\n")
	require.ElementsMatch(t, []string{
		"irp 1: STATUS_SUCCESS, s1",
		"WskSocket(irp 1, family 2, type 1, protocol 6, WSK_FLAG_LISTEN_SOCKET) = STATUS_SUCCESS",
		"s1 WskBind(irp 2, 127.0.0.1:0, flags 0x0) = STATUS_PENDING",
		"irp 2: STATUS_SUCCESS",
		"irp 3: STATUS_SUCCESS",
		"s1 WskGetLocalAddress(irp 3) = STATUS_SUCCESS",
		"WskSocketConnect(irp 4, 0.0.0.0:0, 127.0.0.1:PORT, flags 0x0) = STATUS_PENDING",
		"irp 4: STATUS_SUCCESS, s2",
		"irp 5: STATUS_SUCCESS, s3",
		"s1 WskAccept(irp 5, flags 0x0) = " + accepted(got),
		"s2 WskSend(irp 6, 5 bytes, flags 0x2) = STATUS_PENDING",
		"irp 6: STATUS_SUCCESS, 5 bytes",
		"irp 7: STATUS_NOT_FOUND",
		"s3 WskControlSocket(irp 7, WskIoctl, SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS, level 0x0, in 0, out 64) = STATUS_NOT_FOUND",
		"irp 8: STATUS_INVALID_DEVICE_REQUEST",
		"s3 WskControlSocket(irp 8, WskGetOption, 0x7777, level 0x6, in 0, out 0) = STATUS_INVALID_DEVICE_REQUEST",
		"s2 WskListen(no irp) = STATUS_INVALID_PARAMETER",
		"s2 WskCloseSocket(irp 9) = STATUS_PENDING", "irp 9: STATUS_SUCCESS",
		"s3 WskCloseSocket(irp 10) = STATUS_PENDING", "irp 10: STATUS_SUCCESS",
		"s1 WskCloseSocket(irp 11) = STATUS_PENDING", "irp 11: STATUS_SUCCESS",
	}, got)
}

// accepted is how the accept returned: the connection was there or not.
func accepted(lines []string) string {
	for _, l := range lines {
		if strings.Contains(l, "WskAccept(") && strings.HasSuffix(l, "STATUS_PENDING") {
			return "STATUS_PENDING"
		}
	}
	return "STATUS_SUCCESS"
}

// Every call of a socket is in a trace, also one that is not for this socket.
func TestTraceHasEveryCall(t *testing.T) {
	w := open(t, wsk.Debug{})
	s := w.socket(t, wsk.BasicSocket, nil)
	defer shut(t, s)
	var out lockedBuffer
	stop := wsk.Trace(&out, w.Client.Client)
	var a netip.AddrPort
	for name, call := range map[string]func(*wsk.IRP) ntstatus.Status{
		"WskBind":             func(p *wsk.IRP) ntstatus.Status { return s.Bind(loopback, 0, p) },
		"WskListen":           s.Listen,
		"WskAccept":           func(p *wsk.IRP) ntstatus.Status { return s.Accept(0, nil, nil, nil, nil, p) },
		"WskConnect":          func(p *wsk.IRP) ntstatus.Status { return s.Connect(destination, 0, p) },
		"WskConnectEx":        func(p *wsk.IRP) ntstatus.Status { return s.ConnectEx(destination, nil, 0, p) },
		"WskSend":             func(p *wsk.IRP) ntstatus.Status { return s.Send(nil, 0, p) },
		"WskSendEx":           func(p *wsk.IRP) ntstatus.Status { return s.SendEx(nil, 0, nil, p) },
		"WskReceive":          func(p *wsk.IRP) ntstatus.Status { return s.Receive(nil, 0, p) },
		"WskReceiveEx":        func(p *wsk.IRP) ntstatus.Status { return s.ReceiveEx(nil, 0, nil, nil, p) },
		"WskDisconnect":       func(p *wsk.IRP) ntstatus.Status { return s.Disconnect(nil, 0, p) },
		"WskSendTo":           func(p *wsk.IRP) ntstatus.Status { return s.SendTo(nil, 0, destination, nil, p) },
		"WskSendMessages":     func(p *wsk.IRP) ntstatus.Status { return s.SendMessages(nil, 0, destination, nil, p) },
		"WskReceiveFrom":      func(p *wsk.IRP) ntstatus.Status { return s.ReceiveFrom(nil, 0, nil, nil, nil, p) },
		"WskGetLocalAddress":  func(p *wsk.IRP) ntstatus.Status { return s.GetLocalAddress(&a, p) },
		"WskGetRemoteAddress": func(p *wsk.IRP) ntstatus.Status { return s.GetRemoteAddress(&a, p) },
	} {
		before := len(out.String())
		st, _ := run(call)
		require.Equal(t, ntstatus.InvalidDeviceRequest, st.Status, name)
		line := out.String()[before:]
		require.Contains(t, line, "s1 "+name+"(irp ")
		require.Contains(t, line, ") = STATUS_INVALID_DEVICE_REQUEST")
		require.Equal(t, 1, strings.Count(line, "s1 "), name)
	}
	stop()
}
