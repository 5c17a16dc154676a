package wsk_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// waited is an IRP whose maker waits for it; done hears of its completion.
func waited() (p *wsk.IRP, done chan wsk.IoStatus) {
	p, done = wsk.AllocateIRP(1), make(chan wsk.IoStatus, 1)
	p.SetCompletionRoutine(func(p *wsk.IRP, _ any) ntstatus.Status {
		done <- p.IoStatus()
		return ntstatus.MoreProcessingRequired
	}, nil, wsk.InvokeAlways)
	p.SetSynchronous()
	return p, done
}

// pair is a connection of two sockets.
func pair(t *testing.T, w *world) (near, far *wsk.Socket) {
	l, at := w.listen(t)
	near = w.dial(t, at)
	far = accept(t, l)
	shut(t, l)
	t.Cleanup(func() { shut(t, near, far) })
	return near, far
}

func send(t *testing.T, s *wsk.Socket, data string) {
	t.Helper()
	must(t, func(p *wsk.IRP) ntstatus.Status { return s.Send([]byte(data), 0, p) })
}

// IRP-12: a routine may run before the call returns. That of a call whose maker
// waits does, and the call still says that it pended.
func TestSynchronousCallIsOverWhenItReturns(t *testing.T) {
	w := open(t, wsk.Debug{})
	l, at := w.listen(t)
	defer shut(t, l)
	s := w.socket(t, wsk.ConnectionSocket, nil)
	for _, c := range []struct {
		name string
		call func(*wsk.IRP) ntstatus.Status
		want wsk.IoStatus
	}{
		{"bind", func(p *wsk.IRP) ntstatus.Status { return s.Bind(loopback, 0, p) }, wsk.IoStatus{}},
		{"connect", func(p *wsk.IRP) ntstatus.Status { return s.Connect(at, 0, p) }, wsk.IoStatus{}},
		{"send", func(p *wsk.IRP) ntstatus.Status { return s.Send([]byte("four"), 0, p) }, wsk.IoStatus{Information: 4}},
		{"disconnect", func(p *wsk.IRP) ntstatus.Status { return s.Disconnect(nil, 0, p) }, wsk.IoStatus{}},
		{"close", s.CloseSocket, wsk.IoStatus{}},
	} {
		p, done := waited()
		require.Equal(t, ntstatus.Pending, c.call(p), c.name)
		require.Len(t, done, 1, c.name)
		require.Equal(t, c.want, <-done, c.name)
		p.Free()
	}
	shut(t, accept(t, l))
}

// IRP-10: another goroutine cancels it, whether a callout or the transport holds it.
func TestSynchronousCallIsCancelledFromOutside(t *testing.T) {
	w := open(t, wsk.Debug{})
	held := make(chan struct{})
	near, far := pair(t, w)
	_, _, err := w.Engine.RegisterCallout("holds", fwps.CalloutFunc(func(ctx context.Context, _ *fwps.Call, v *fwps.Verdict) error {
		close(held)
		<-ctx.Done()
		v.Action = fwp.ActionPermit
		return nil
	}))
	require.NoError(t, err)
	w.Add(t, fwpm.Filter{ID: 1, Name: "holds", Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutUnknown, Callout: "holds"})
	s := w.socket(t, wsk.ConnectionSocket, nil)
	defer shut(t, s)
	must(t, func(p *wsk.IRP) ntstatus.Status { return s.Bind(loopback, 0, p) })

	connect, done := waited()
	go func() {
		<-held
		connect.Cancel()
	}()
	s.Connect(destination, 0, connect)
	require.Equal(t, wsk.IoStatus{Status: ntstatus.Cancelled}, <-done)
	connect.Free()

	receive, done := waited()
	go receive.Cancel()
	near.Receive(make([]byte, 1), 0, receive)
	require.Equal(t, wsk.IoStatus{Status: ntstatus.Cancelled}, <-done)
	receive.Free()

	send(t, far, "x")
	st, _ := run(func(p *wsk.IRP) ntstatus.Status { return near.Receive(make([]byte, 1), 0, p) })
	require.Equal(t, wsk.IoStatus{Information: 1}, st, "the next one is not interrupted")
}

// Who waits for a receive runs it, and what was called meanwhile is not forgotten.
func TestSynchronousCallTakesItsTurn(t *testing.T) {
	w := open(t, wsk.Debug{})
	near, far := pair(t, w)
	const calls = 8
	received := make(chan wsk.IoStatus, calls)
	for i := range calls {
		p, done := waited()
		if i%2 == 0 {
			p.Reuse(ntstatus.Success) // IRP-11: it is one like any other again, and the call returns.
			p.SetCompletionRoutine(func(p *wsk.IRP, _ any) ntstatus.Status {
				done <- p.IoStatus()
				return ntstatus.MoreProcessingRequired
			}, nil, wsk.InvokeAlways)
			require.Equal(t, ntstatus.Pending, near.Receive(make([]byte, 1), 0, p))
		} else {
			go near.Receive(make([]byte, 1), 0, p)
		}
		go func() {
			received <- <-done
			p.Free()
		}()
	}
	for range calls {
		send(t, far, "x")
		require.Equal(t, wsk.IoStatus{Information: 1}, <-received)
	}
}
