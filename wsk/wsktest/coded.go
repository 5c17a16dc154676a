package wsktest

import (
	"fmt"
	"net/netip"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// coded are the cases that no script can show.
var coded = map[string]func(t *testing.T, debug wsk.Debug){
	"WSK-REG-02 a version is major and minor": func(t *testing.T, _ wsk.Debug) {
		require.EqualValues(t, 0x0100, wsk.MakeVersion(1, 0))
		require.EqualValues(t, 0x0302, wsk.MakeVersion(3, 2))
		require.Equal(t, wsk.Version10, wsk.MakeVersion(1, 0))
	},
	"WSK-REG-08 the captured NPI has a handle, the dispatch table and its version": testNPI,
	"WSK-CAT-01 each category has exactly its dispatch table":                      testDispatchTables,
	"WSK-CAT-06 the socket comes with the IRP, and only if there is one":           testSocketComesWithIRP,
	"IRP-03 the owner frees the IRP, and WSK leaves a freed one alone":             testFree,
	"IRP-11 IoReuseIrp clears a routine that was set":                              testReuse,
	"IRP-07 a completion routine that starts a new call does no harm":              testRoutineCalls,
	"SC-14 closing cancels a pending query before the close completes":             testCloseCancelsQuery,
	"AMB-15 records of another engine are denied":                                  testOtherEngine,
	"AMB-16 sixteen hops fit a kilobyte, and there is no seventeenth":              testSixteenHops,
}

// play runs a script in a world of its own.
func play(t *testing.T, debug wsk.Debug, script string) *world {
	t.Helper()
	w := newWorld(debug)
	t.Cleanup(func() { require.NoError(t, w.end()) })
	w.play(t, script)
	return w
}

func (w *world) play(t *testing.T, script string) {
	t.Helper()
	st, err := parseScript(Case{file: t.Name(), line: 1, script: script})
	require.NoError(t, err)
	require.NoError(t, w.run(st))
}

// ask makes a call and returns how it ended.
func (w *world) ask(t *testing.T, do func(*wsk.IRP) ntstatus.Status) *pending {
	t.Helper()
	p := w.start(nil, do)
	require.NoError(t, p.wait())
	require.NoError(t, p.check())
	return p
}

func testNPI(t *testing.T, debug wsk.Debug) {
	w := play(t, debug, "register R\ncapture R wait=0")
	npi := w.registrations["R"].npi
	require.NotNil(t, npi.Client)
	require.Equal(t, wsk.Version10, npi.Version)
	for _, entry := range []string{"Socket", "SocketConnect", "ControlClient", "GetAddressInfo", "FreeAddressInfo", "GetNameInfo"} {
		_, ok := reflect.TypeOf(npi.Client).MethodByName(entry)
		require.True(t, ok, entry)
	}
	w.play(t, "release-npi R")
}

// operations are the entries of the dispatch tables, each called with nothing in it.
var operations = map[string]func(*wsk.Socket, *wsk.IRP) ntstatus.Status{
	"ControlSocket": func(s *wsk.Socket, p *wsk.IRP) ntstatus.Status {
		return s.ControlSocket(wsk.Ioctl, wsk.SIOQueryWFPALEEndpointHandle, 0, nil, make([]byte, 8), nil, p)
	},
	"Bind":             func(s *wsk.Socket, p *wsk.IRP) ntstatus.Status { return s.Bind(netip.AddrPort{}, 0, p) },
	"Listen":           func(s *wsk.Socket, p *wsk.IRP) ntstatus.Status { return s.Listen(p) },
	"Accept":           func(s *wsk.Socket, p *wsk.IRP) ntstatus.Status { return s.Accept(0, nil, nil, nil, nil, p) },
	"InspectComplete":  func(s *wsk.Socket, p *wsk.IRP) ntstatus.Status { return s.InspectComplete(wsk.InspectID{}, 0, p) },
	"Connect":          func(s *wsk.Socket, p *wsk.IRP) ntstatus.Status { return s.Connect(netip.AddrPort{}, 0, p) },
	"GetLocalAddress":  func(s *wsk.Socket, p *wsk.IRP) ntstatus.Status { return s.GetLocalAddress(nil, p) },
	"GetRemoteAddress": func(s *wsk.Socket, p *wsk.IRP) ntstatus.Status { return s.GetRemoteAddress(nil, p) },
	"Send":             func(s *wsk.Socket, p *wsk.IRP) ntstatus.Status { return s.Send(nil, 0, p) },
	"Receive":          func(s *wsk.Socket, p *wsk.IRP) ntstatus.Status { return s.Receive(nil, 0, p) },
	"Disconnect":       func(s *wsk.Socket, p *wsk.IRP) ntstatus.Status { return s.Disconnect(nil, 0, p) },
	"ConnectEx":        func(s *wsk.Socket, p *wsk.IRP) ntstatus.Status { return s.ConnectEx(netip.AddrPort{}, nil, 0, p) },
	"SendEx":           func(s *wsk.Socket, p *wsk.IRP) ntstatus.Status { return s.SendEx(nil, 0, nil, p) },
	"ReceiveEx":        func(s *wsk.Socket, p *wsk.IRP) ntstatus.Status { return s.ReceiveEx(nil, 0, nil, nil, p) },
	"SendTo":           func(s *wsk.Socket, p *wsk.IRP) ntstatus.Status { return s.SendTo(nil, 0, netip.AddrPort{}, nil, p) },
	"SendMessages": func(s *wsk.Socket, p *wsk.IRP) ntstatus.Status {
		return s.SendMessages(nil, 0, netip.AddrPort{}, nil, p)
	},
	"ReceiveFrom": func(s *wsk.Socket, p *wsk.IRP) ntstatus.Status { return s.ReceiveFrom(nil, 0, nil, nil, nil, p) },
	"CloseSocket": func(s *wsk.Socket, p *wsk.IRP) ntstatus.Status { return s.CloseSocket(p) },
}

// testDispatchTables has the tables of the documentation a second time, so that
// no category gains or loses an entry unnoticed. WskRelease has no IRP.
func testDispatchTables(t *testing.T, debug wsk.Debug) {
	tables := map[string][]string{
		"basic":      {},
		"listen":     {"Bind", "Accept", "InspectComplete", "GetLocalAddress"},
		"connection": {"Bind", "Connect", "GetLocalAddress", "GetRemoteAddress", "Send", "Receive", "Disconnect", "ConnectEx", "SendEx", "ReceiveEx"},
		"datagram":   {"Bind", "SendTo", "ReceiveFrom", "GetLocalAddress", "SendMessages"},
		"stream": {"Bind", "Accept", "Connect", "Listen", "Send", "Receive", "Disconnect", "GetLocalAddress", "GetRemoteAddress",
			"ConnectEx", "SendEx", "ReceiveEx"},
	}
	for category, table := range tables {
		w := play(t, debug, "socket s "+category)
		s := w.socket("s")
		for name, call := range operations {
			if name == "CloseSocket" {
				continue // The last, by the end of the world.
			}
			st := w.ask(t, func(p *wsk.IRP) ntstatus.Status { return call(s, p) }).status().Status
			has := name == "ControlSocket"
			for _, e := range table {
				has = has || e == name
			}
			require.Equal(t, !has, st == ntstatus.InvalidDeviceRequest, "%s of a %s socket: %v", name, category, st)
		}
	}
}

func testSocketComesWithIRP(t *testing.T, debug wsk.Debug) {
	w := play(t, debug, "socket a connection\nsocket b connection")
	require.NotSame(t, w.socket("a"), w.socket("b"))
	p := w.ask(t, func(p *wsk.IRP) ntstatus.Status {
		return w.client.Socket(wsk.AFInet, wsk.SockRaw, wsk.IPProtoTCP, wsk.ConnectionSocket, nil, nil, nil, 0, p)
	})
	require.Equal(t, ntstatus.ProtocolNotSupported, p.status().Status)
	require.Nil(t, p.irp.socket)
}

func testFree(t *testing.T, debug wsk.Debug) {
	w := play(t, debug, "socket s connection\nbind s 127.0.0.1:0")
	var a netip.AddrPort
	get := func(p *wsk.IRP) ntstatus.Status { return w.socket("s").GetLocalAddress(&a, p) }
	p := w.ask(t, get)
	irp := p.irp.irp
	require.Equal(t, ntstatus.Success, irp.IoStatus().Status, "the owner still has it")
	irp.Free()
	require.Equal(t, ntstatus.InvalidParameter, get(irp))
	require.False(t, irp.Cancel())
	require.Nil(t, wsk.AllocateIRP(0))
	require.Nil(t, wsk.BuildIRP(128, nil))
}

func testReuse(t *testing.T, debug wsk.Debug) {
	w := play(t, debug, "socket s connection\nbind s 127.0.0.1:0")
	irp := wsk.AllocateIRP(1)
	defer irp.Free()
	irp.SetCompletionRoutine(func(*wsk.IRP, any) ntstatus.Status {
		t.Error("the routine of before ran")
		return ntstatus.MoreProcessingRequired
	}, nil, wsk.InvokeAlways)
	irp.Reuse(ntstatus.DeviceBusy)
	require.Equal(t, ntstatus.DeviceBusy, irp.IoStatus().Status)
	var a netip.AddrPort
	require.Equal(t, ntstatus.InvalidParameter, w.socket("s").GetLocalAddress(&a, irp))
}

// testRoutineCalls receives a stream byte by byte, each receive started by the
// completion routine of the one before, on the same IRP.
func testRoutineCalls(t *testing.T, debug wsk.Debug) {
	w := play(t, debug, "socket P listen\nbind P 127.0.0.1:0\ndial o @P\naccept P c")
	var got []byte
	done := make(chan struct{})
	buf := make([]byte, 1)
	irp := wsk.AllocateIRP(1)
	var routine wsk.CompletionRoutine
	next := func() {
		irp.Reuse(ntstatus.Unsuccessful)
		irp.SetCompletionRoutine(routine, nil, wsk.InvokeAlways)
		w.socket("c").Receive(buf, 0, irp)
	}
	routine = func(p *wsk.IRP, _ any) ntstatus.Status {
		if p.IoStatus().Information == 0 {
			close(done)
			return ntstatus.MoreProcessingRequired
		}
		got = append(got, buf[0])
		next()
		return ntstatus.MoreProcessingRequired
	}
	next()
	w.play(t, "peer o send size:500\npeer o shut")
	require.NoError(t, wait("the last receive", done))
	want, err := w.blob("size:500")
	require.NoError(t, err)
	require.Equal(t, want, got)
}

// testCloseCancelsQuery holds a query in the provider, so that it and the one
// behind it are pending when the socket is closed.
func testCloseCancelsQuery(t *testing.T, _ wsk.Debug) {
	held, release := make(chan struct{}), make(chan struct{})
	debug := wsk.Debug{AlwaysPend: true, Fault: func(code uint32) ntstatus.Status {
		if code == wsk.SIOQueryWFPConnectionRedirectContext {
			close(held)
			<-release
			return ntstatus.Unsuccessful
		}
		return ntstatus.Success
	}}
	w := play(t, debug, "socket P listen\nbind P 127.0.0.1:0\ndial o @P\naccept P c\none: ioctl c context out=16")
	require.NoError(t, wait("the first query", held))
	w.play(t, "two: ioctl c records out=16\nend: close c\nawait two -> STATUS_CANCELLED info=0 untouched=0\nstill one\nstill end")
	close(release)
	w.play(t, "await one -> STATUS_CANCELLED info=0\nawait end -> STATUS_SUCCESS")
}

func testOtherEngine(t *testing.T, debug wsk.Debug) {
	w := play(t, debug, "socket P listen\nbind P 127.0.0.1:0\ncallout A redirect=@P pid=1000\n"+
		"socket a connection owner=app\nbind a 0.0.0.0:0\nconnect a 198.51.100.7:80\naccept P c\nioctl c records out=1024 -> STATUS_SUCCESS save=$r")
	other := play(t, debug, "socket p connection")
	other.blobs["r"] = w.blobs["r"]
	other.play(t, "ioctl p set-records in=$r -> STATUS_ACCESS_DENIED info=0\nwsaioctl p set-records in=$r -> WSAEACCES bytes=0")
}

func testSixteenHops(t *testing.T, debug wsk.Debug) {
	w := play(t, debug, "socket P listen\nbind P 127.0.0.1:0\ncallout A redirect=@P pid=1000 always=yes context=size:4096 record=size:4096\n"+
		"socket p0 connection owner=app\nbind p0 0.0.0.0:0\nconnect p0 198.51.100.7:80\naccept P c0")
	w.play(t, "ioctl c0 records out=1024 -> STATUS_SUCCESS save=$r")
	for hop := 2; hop <= 17; hop++ {
		name := fmt.Sprint("p", hop)
		w.play(t, fmt.Sprintf("socket %[1]s connection\nioctl %[1]s set-records in=$r\nbind %[1]s 0.0.0.0:0", name))
		if hop == 17 {
			w.play(t, fmt.Sprintf("connect %s 198.51.100.7:80 -> STATUS_ACCESS_DENIED", name))
			break
		}
		w.play(t, fmt.Sprintf("connect %s 198.51.100.7:80\naccept P c%d\nioctl c%[2]d records out=1024 -> STATUS_SUCCESS save=$r", name, hop))
	}
	require.Greater(t, len(w.blobs["r"]), 512)
}
