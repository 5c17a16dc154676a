package winsock_test

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/sdk/go/sockaddr"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/winsock"
	"github.com/calloutd/calloutd/wsk/wsknet"
	"github.com/calloutd/calloutd/wsk/wsktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A redirected connection and its proxy, written with nothing but this package
// and package net's interfaces, as it would be for Windows.
func TestProxyWrittenForWindows(t *testing.T) {
	origin, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer origin.Close()
	w := wsktest.Open(t, wsk.Debug{})
	proxy, err := wsknet.Listen(t.Context(), w.Client, "127.0.0.1:0")
	require.NoError(t, err)
	defer proxy.Close()
	seen := states(t, w, proxy.Addr().(*net.TCPAddr).AddrPort(), origin.Addr().(*net.TCPAddr).AddrPort())

	app, err := (&wsknet.Dialer{Client: w.Client}).DialContext(t.Context(), "tcp", origin.Addr().String())
	require.NoError(t, err)
	defer app.Close()
	accepted, err := proxy.Accept()
	require.NoError(t, err)
	defer accepted.Close()

	records, err := winsock.RedirectRecords(accepted)
	require.NoError(t, err)
	context, err := winsock.RedirectContext(accepted)
	require.NoError(t, err)
	to, err := sockaddr.Parse(context)
	require.NoError(t, err)
	original, err := winsock.OriginalDestination(accepted)
	require.NoError(t, err)
	require.Equal(t, to, original)
	out, err := (&wsknet.Dialer{Client: w.Client, Control: winsock.Control(records)}).DialContext(t.Context(), "tcp", to.String())
	require.NoError(t, err)
	defer out.Close()
	require.Equal(t, []redirect.State{redirect.NotRedirected, redirect.RedirectedBySelf}, *seen)

	_, err = winsock.RedirectRecords(app)
	require.ErrorIs(t, err, fs.ErrNotExist, "SC-17")
	bad := bytes.Clone(records)
	bad[40] ^= 1
	_, err = (&wsknet.Dialer{Client: w.Client, Control: winsock.Control(bad)}).DialContext(t.Context(), "tcp", to.String())
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, "redirect records for tcp "+to.String())
}

// A connection of package net is nobody's here; on Windows the system knows it.
func TestForeignConnection(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	for _, query := range []func(net.Conn) ([]byte, error){winsock.RedirectRecords, winsock.RedirectContext} {
		_, err := query(a)
		require.ErrorIs(t, err, errors.ErrUnsupported)
	}
	_, err := winsock.OriginalDestination(a)
	require.ErrorIs(t, err, errors.ErrUnsupported)
}

// Every status that a control code answers with has an error, as the table of
// the pages has it.
func TestErrors(t *testing.T) {
	for st, want := range map[ntstatus.Status]winsock.Error{
		ntstatus.Success: 0, ntstatus.Pending: 997, ntstatus.Cancelled: 995, ntstatus.BufferTooSmall: 122, ntstatus.NotFound: 0x80320008,
		ntstatus.AccessDenied: 10013, ntstatus.IntegerOverflow: 10022, ntstatus.InvalidParameter: 10022, ntstatus.InvalidDeviceRequest: 10045,
		ntstatus.InvalidDeviceState: 10057, ntstatus.FileForcedClosed: 10038, ntstatus.DeviceBusy: 10050,
	} {
		require.Equal(t, want, winsock.FromStatus(st), "%v", st)
	}
	require.NoError(t, winsock.Success.Err())
	require.ErrorIs(t, winsock.FWPENotFound.Err(), fs.ErrNotExist)
	require.ErrorIs(t, winsock.ErrorNotFound, fs.ErrNotExist)
	require.ErrorIs(t, winsock.WSAEAcces, fs.ErrPermission)
	require.Equal(t, "Winsock error 10093", winsock.Error(10093).Error())
}

// RED-UM-04: an overlapped call is aborted by the close of its socket, and by
// CancelIoEx; a structure that is in use is refused.
func TestOverlapped(t *testing.T) {
	w := wsktest.Open(t, wsk.Debug{})
	s := wsktest.Must(t, func(p *wsk.IRP) ntstatus.Status {
		return w.Socket(wsk.AFInet, wsk.SockStream, wsk.IPProtoTCP, wsk.ConnectionSocket, nil, nil, nil, 0, p)
	})
	sock, o, done := winsock.Socket{WSK: s}, new(winsock.Overlapped), make(chan winsock.Error, 1)
	_, err := o.Result(false)
	require.Equal(t, winsock.WSAEInval, err)
	wait := func(e winsock.Error, _ uint32, _ *winsock.Overlapped) { done <- e }
	for _, end := range []func(){func() { require.True(t, o.Cancel()) }, func() { wsktest.Must(t, s.CloseSocket) }} {
		require.Equal(t, winsock.WSAIOPending, sock.WSAIoctl(wsk.SIOAddressListChange, nil, nil, nil, o, wait))
		_, err = o.Result(false)
		require.Equal(t, winsock.WSAIOIncomplete, err)
		require.Equal(t, winsock.WSAEInval, sock.WSAIoctl(wsk.SIOAddressListChange, nil, nil, nil, o, wait))
		end()
		require.Equal(t, winsock.WSAOperationAborted, <-done)
		_, err = o.Result(true)
		require.Equal(t, winsock.WSAOperationAborted, err)
	}
	require.False(t, o.Cancel())
	require.Equal(t, winsock.WSAENotSock, winsock.Socket{}.WSAIoctl(1, nil, nil, nil, o, nil))
	_, err = winsock.Socket{}.Getsockopt(1, 2, nil)
	require.Equal(t, winsock.WSAENotSock, err)
}

// A routine may wait for the result of its own call, which is over, and use the structure
// again. A call that waits has none.
func TestOverlappedRoutines(t *testing.T) {
	w := wsktest.Open(t, wsk.Debug{AlwaysPend: true})
	s := wsktest.Must(t, func(p *wsk.IRP) ntstatus.Status {
		return w.Socket(wsk.AFInet, wsk.SockStream, wsk.IPProtoTCP, wsk.ConnectionSocket, nil, nil, nil, 0, p)
	})
	sock, o, results := winsock.Socket{WSK: s}, new(winsock.Overlapped), make(chan winsock.Error)
	last := func(err winsock.Error, _ uint32, _ *winsock.Overlapped) { results <- err }
	first := func(_ winsock.Error, _ uint32, o *winsock.Overlapped) {
		_, err := o.Result(true)
		results <- err
		sock.WSAIoctl(wsk.SIOQueryWFPConnectionRedirectContext, nil, nil, nil, o, last)
	}
	require.Equal(t, winsock.WSAIOPending, sock.WSAIoctl(wsk.SIOQueryWFPConnectionRedirectContext, nil, nil, nil, o, first))
	for range 2 {
		select {
		case err := <-results:
			require.Equal(t, winsock.WSAENotConn, err)
		case <-time.After(time.Minute):
			t.Fatal("the routine waits for itself")
		}
	}
	var n uint32
	require.Equal(t, winsock.WSAENotConn, sock.WSAIoctl(wsk.SIOQueryWFPConnectionRedirectContext, nil, nil, &n, nil,
		func(winsock.Error, uint32, *winsock.Overlapped) { t.Error("a routine without an overlapped structure") }))
	wsktest.Must(t, s.CloseSocket)
}

// RED-UM-01, AMB-13: records of a length that none can have, or a place for an answer, are
// refused before the engine is asked, which refuses what it has not sealed.
func TestRecordsThatCannotBeSet(t *testing.T) {
	w := wsktest.Open(t, wsk.Debug{})
	s := wsktest.Must(t, func(p *wsk.IRP) ntstatus.Status {
		return w.Socket(wsk.AFInet, wsk.SockStream, wsk.IPProtoTCP, wsk.ConnectionSocket, nil, nil, nil, 0, p)
	})
	defer wsktest.Must(t, s.CloseSocket)
	set := func(n, room int) winsock.Error {
		var returned uint32
		return winsock.Socket{WSK: s}.WSAIoctl(wsk.SIOSetWFPConnectionRedirectRecords, make([]byte, n), make([]byte, room), &returned, nil, nil)
	}
	for _, hops := range []int{1, redirect.MaxHops} {
		n := redirect.SealedLen(hops)
		require.Equal(t, winsock.WSAEAcces, set(n, 0))
		require.Equal(t, winsock.WSAEInval, set(n, 1))
		require.Equal(t, winsock.WSAEInval, set(n+1, 0))
	}
	require.Equal(t, winsock.WSAEInval, set(redirect.SealedLen(0), 0))
	require.Equal(t, winsock.WSAEInval, set(redirect.SealedLen(redirect.MaxHops+1), 0))
}

// What a call that waits says of its result: how long it is, and, of the redirect queries
// only, that there is no connection (SC-16). AMB-21: NOT_FOUND is what the owner wants.
func TestWaitedCalls(t *testing.T) {
	w := wsktest.Open(t, wsk.Debug{})
	open := func(c wsk.Category, d wsk.Dispatch) winsock.Socket {
		typ, protocol := wsk.SockStream, wsk.IPProtoTCP
		if c == wsk.DatagramSocket {
			typ, protocol = wsk.SockDgram, wsk.IPProtoUDP
		}
		s := wsktest.Must(t, func(p *wsk.IRP) ntstatus.Status {
			return w.Socket(wsk.AFInet, typ, protocol, c, nil, d, nil, 0, p)
		})
		t.Cleanup(func() { wsktest.Must(t, s.CloseSocket) })
		return winsock.Socket{WSK: s, NotFound: winsock.ErrorNotFound}
	}
	ask := func(s winsock.Socket, code uint32) winsock.Error {
		var n uint32
		return s.WSAIoctl(code, nil, make([]byte, 64), &n, nil, nil)
	}
	for _, code := range []uint32{wsk.SIOQueryWFPConnectionRedirectRecords, wsk.SIOQueryWFPConnectionRedirectContext} {
		require.Equal(t, winsock.WSAENotConn, ask(open(wsk.ConnectionSocket, nil), code))
		require.Equal(t, winsock.WSAENotConn, ask(open(wsk.ListenSocket, nil), code))
		require.Equal(t, winsock.FromStatus(ntstatus.InvalidDeviceRequest), ask(open(wsk.BasicSocket, nil), code))
		require.Equal(t, winsock.ErrorNotFound, ask(open(wsk.DatagramSocket, nil), code))
	}
	require.Equal(t, winsock.FromStatus(ntstatus.InvalidDeviceRequest), ask(open(wsk.ConnectionSocket, nil), 0x12345))

	var n uint32
	require.Equal(t, winsock.Success, open(wsk.ConnectionSocket, nil).WSAIoctl(wsk.SIOQueryWFPALEEndpointHandle, nil, make([]byte, 64), &n, nil, nil))
	require.EqualValues(t, 8, n)
}

// RED-UM-12: the messages of a buffer, and what is none. Each begins at a multiple of 8.
func TestControl(t *testing.T) {
	want := []wsk.ControlMessage{{Level: 1, Type: 2, Data: []byte("records")}, {Level: 3, Type: 4, Data: []byte{}}}
	b := winsock.AppendControl(nil, want...)
	require.Len(t, b, 24+16)
	got, err := winsock.ParseControl(b)
	require.NoError(t, err)
	require.Equal(t, want, got)
	got, err = winsock.ParseControl(nil)
	require.NoError(t, err)
	require.Empty(t, got)
	for _, c := range []struct {
		b   []byte
		why string
	}{
		{b[:15], "winsock: control data: 15 bytes at 0, a header has 16"},
		{b[:39], "winsock: control data: 15 bytes at 24, a header has 16"},
		{append([]byte{15}, make([]byte, 15)...), "winsock: control data: the message at 0 says 15 bytes of 16"},
		{append([]byte{17}, make([]byte, 15)...), "winsock: control data: the message at 0 says 17 bytes of 16"},
	} {
		_, err := winsock.ParseControl(c.b)
		require.EqualError(t, err, c.why)
	}
}

// What ParseControl takes it gives back the same; what it refuses it explains.
func FuzzParseControl(f *testing.F) {
	f.Add(winsock.AppendControl(nil, wsk.ControlMessage{Type: 60, Data: []byte("records")}, wsk.ControlMessage{Level: 41, Type: 70}))
	f.Add([]byte{16, 0, 0, 0})
	f.Add(bytes.Repeat([]byte{0xFF}, 16))
	f.Fuzz(func(t *testing.T, b []byte) {
		messages, err := winsock.ParseControl(b)
		if err != nil {
			require.ErrorContains(t, err, "winsock: control data: ")
			return
		}
		again, err := winsock.ParseControl(winsock.AppendControl(nil, messages...))
		require.NoError(t, err)
		require.Equal(t, len(messages), len(again))
		for i := range messages {
			require.Equal(t, messages[i].Type, again[i].Type)
			require.True(t, bytes.Equal(messages[i].Data, again[i].Data))
		}
	})
}

// states sends what goes to a port to the proxy, with both addresses as
// context, and notes the states in which the callout is asked.
func states(t *testing.T, w *wsktest.Client, proxy, port netip.AddrPort) *[]redirect.State {
	states := new([]redirect.State)
	w.AtConnect(t, func(c *fwps.Call, v *fwps.Verdict) {
		*states = append(*states, c.State)
		if c.State == redirect.NotRedirected && c.In.Remote.Port() == port.Port() {
			v.Redirect, v.To, v.TargetPID = true, proxy, 1000
			v.Context = sockaddr.Append(sockaddr.Append(v.Context, c.In.Remote), c.In.Local)
		}
	})
	return states
}
