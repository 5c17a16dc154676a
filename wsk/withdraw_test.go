package wsk_test

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// begin starts a call that pends. ended has its end once.
func begin(t *testing.T, call func(*wsk.IRP) ntstatus.Status) (irp *wsk.IRP, ended <-chan wsk.IoStatus) {
	done := make(chan wsk.IoStatus, 1)
	irp = own(func(p *wsk.IRP, _ any) ntstatus.Status { done <- p.IoStatus(); return ntstatus.MoreProcessingRequired })
	t.Cleanup(irp.Free)
	require.Equal(t, ntstatus.Pending, call(irp))
	return irp, done
}

var cancelled = wsk.IoStatus{Status: ntstatus.Cancelled}

// WSK-DISC-01, IRP-10: a graceful disconnect that ended before anything of it went out has
// not been: the socket sends, and disconnects.
func TestDisconnectThatIsCancelledHasNotBeen(t *testing.T) {
	w := open(t, wsk.Debug{})
	near, far := pair(t, w)
	big := make([]byte, 8<<20) // More than the system takes.
	_, first := begin(t, func(p *wsk.IRP) ntstatus.Status { return near.Send(big, 0, p) })
	irp, ended := begin(t, func(p *wsk.IRP) ntstatus.Status { return near.Disconnect([]byte("no"), 0, p) })
	for _, call := range []func(p *wsk.IRP) ntstatus.Status{
		func(p *wsk.IRP) ntstatus.Status { return near.Send([]byte("no"), 0, p) },
		func(p *wsk.IRP) ntstatus.Status { return near.Disconnect(nil, 0, p) },
	} {
		st, _ := run(call)
		require.Equal(t, ntstatus.InvalidDeviceState, st.Status, "nothing follows it")
	}
	irp.Cancel()
	require.Equal(t, cancelled, <-ended)
	_, second := begin(t, func(p *wsk.IRP) ntstatus.Status { return near.Send([]byte("second"), 0, p) })
	must(t, func(p *wsk.IRP) ntstatus.Status {
		return far.Receive(make([]byte, len(big)+len("second")), wsk.FlagWaitAll, p)
	})
	require.Equal(t, wsk.IoStatus{Information: len(big)}, <-first)
	require.Equal(t, wsk.IoStatus{Information: len("second")}, <-second)

	require.NoError(t, near.Transport().SetWriteDeadline(time.Unix(1, 0))) // As if there were no room.
	st, _ := run(func(p *wsk.IRP) ntstatus.Status { return near.Disconnect([]byte("no"), 0, p) })
	require.Equal(t, cancelled, st)
	require.NoError(t, near.Transport().SetWriteDeadline(time.Time{}))
	must(t, func(p *wsk.IRP) ntstatus.Status { return near.Disconnect([]byte("third"), 0, p) })
	st, _ = run(func(p *wsk.IRP) ntstatus.Status { return far.Receive(make([]byte, 6), wsk.FlagWaitAll, p) })
	require.Equal(t, wsk.IoStatus{Information: len("third")}, st)
}

// WSK-CONN-02: what goes out with a connection goes first, whatever is sent meanwhile.
func TestNothingOvertakesTheDataOfAConnect(t *testing.T) {
	w := open(t, wsk.Debug{})
	l, err := net.Listen("tcp4", loopback.String())
	require.NoError(t, err)
	defer l.Close()
	established, changed, asked, goOn := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
	var times atomic.Int32
	_, _, err = w.Engine.RegisterCallout("again", fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		switch {
		case c.In.Layer == fwpm.LayerALEFlowEstablishedV4:
			close(established)
			<-changed
		case c.In.Flags&fwp.FlagIsReauthorize != 0:
			if times.Add(1) == 1 { // The first data on its way is held.
				close(asked)
				<-goOn
			}
		}
		return nil
	}))
	require.NoError(t, err)
	w.Add(t, fwpm.Filter{ID: 1, Name: "established", Layer: fwpm.LayerALEFlowEstablishedV4, Action: fwp.ActionCalloutUnknown, Callout: "again"})
	s := w.socket(t, wsk.ConnectionSocket, nil)
	defer shut(t, s)
	must(t, func(p *wsk.IRP) ntstatus.Status { return s.Bind(loopback, 0, p) })
	_, connected := begin(t, func(p *wsk.IRP) ntstatus.Status {
		return s.ConnectEx(l.Addr().(*net.TCPAddr).AddrPort(), []byte("first "), 0, p)
	})
	<-established
	require.NoError(t, w.Engine.Update(func(p *fwpm.Policy) error {
		p.Filters = append(p.Filters, fwpm.Filter{ID: 2, Name: "again", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionCalloutUnknown, Callout: "again"})
		return nil
	}))
	close(changed)
	<-asked // The socket is connected, and its data is being asked about.
	_, sent := begin(t, func(p *wsk.IRP) ntstatus.Status { return s.Send([]byte("second"), 0, p) })
	select {
	case <-sent:
		t.Error("the send does not wait")
	case <-time.After(20 * time.Millisecond):
	}
	close(goOn)
	peer, err := l.Accept()
	require.NoError(t, err)
	defer peer.Close()
	all := make([]byte, len("first second"))
	_, err = io.ReadFull(peer, all)
	require.NoError(t, err)
	require.Equal(t, "first second", string(all))
	require.Equal(t, wsk.IoStatus{Information: 6}, <-connected)
	require.Equal(t, wsk.IoStatus{Information: 6}, <-sent)
}

// IRP-10: a connect that is cancelled before its turn leaves a socket that connects.
func TestConnectExThatIsCancelledBeforeItBegins(t *testing.T) {
	w := open(t, wsk.Debug{})
	l, at := w.listen(t)
	defer shut(t, l)
	s := w.socket(t, wsk.ConnectionSocket, nil)
	defer shut(t, s)
	must(t, func(p *wsk.IRP) ntstatus.Status { return s.Bind(loopback, 0, p) })
	_, ended := begin(t, func(p *wsk.IRP) ntstatus.Status {
		p.Cancel()
		return s.ConnectEx(at, []byte("x"), 0, p)
	})
	require.Equal(t, cancelled, <-ended)
	must(t, func(p *wsk.IRP) ntstatus.Status { return s.Connect(at, 0, p) })
	shut(t, accept(t, l))
}

// IRP-10: a connect that is cancelled as its data has gone out resets the connection, and
// says that it was cancelled.
func TestConnectExThatIsCancelledAsItEnds(t *testing.T) {
	w := open(t, wsk.Debug{})
	l, at := w.listen(t)
	defer shut(t, l)
	irp, done := waited()
	s := w.socket(t, wsk.ConnectionSocket, &wsk.ClientConnectionDispatch{SendBacklogEvent: func(any, int) ntstatus.Status {
		irp.Cancel() // All was written.
		return ntstatus.Success
	}})
	defer shut(t, s)
	require.Equal(t, ntstatus.Success, s.ControlSocket(wsk.SetOption, wsk.SOWSKEventCallback, wsk.SolSocket,
		wsk.EventCallbackControl{NpiID: wsk.NPIWSKInterfaceID, EventMask: wsk.EventSendBacklog}.Append(nil), nil, nil, nil))
	must(t, func(p *wsk.IRP) ntstatus.Status { return s.Bind(loopback, 0, p) })
	s.ConnectEx(at, []byte("x"), 0, irp)
	require.Equal(t, cancelled, <-done)
	irp.Free()
	st, _ := run(func(p *wsk.IRP) ntstatus.Status { return s.Send([]byte("x"), 0, p) })
	require.Equal(t, ntstatus.FileForcedClosed, st.Status)
	shut(t, accept(t, l))
}

// WSK-SEND-01: of a send that is cancelled half-way nobody knows what remains: the stream
// would have a hole, so it is reset.
func TestSendThatIsCancelledHalfWayIsAReset(t *testing.T) {
	w := open(t, wsk.Debug{})
	near, far := pair(t, w)
	irp, ended := begin(t, func(p *wsk.IRP) ntstatus.Status { return near.Send(make([]byte, 8<<20), 0, p) })
	must(t, func(p *wsk.IRP) ntstatus.Status { return far.Receive(make([]byte, 1), 0, p) })
	irp.Cancel()
	require.Equal(t, cancelled, <-ended)
	st, _ := run(func(p *wsk.IRP) ntstatus.Status { return near.Send([]byte("x"), 0, p) })
	require.Equal(t, ntstatus.FileForcedClosed, st.Status)
	st, _ = run(func(p *wsk.IRP) ntstatus.Status { return far.Receive(nil, wsk.FlagDrain, p) })
	require.Equal(t, ntstatus.ConnectionReset, st.Status)
}
