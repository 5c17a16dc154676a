package wsk_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// An accepted socket that was redirected, asked again and again with one IRP.
// The floor is the same IRP and an ioctl that nobody knows.
func BenchmarkQuery(b *testing.B) {
	w := open(b, wsk.Debug{})
	l, at := w.listen(b)
	w.redirectTo(b, at, "two hundred bytes of context, or so")
	a := w.socket(b, wsk.ConnectionSocket, nil)
	must(b, func(p *wsk.IRP) ntstatus.Status { return a.Bind(loopback, 0, p) })
	must(b, func(p *wsk.IRP) ntstatus.Status { return a.Connect(destination, 0, p) })
	c := accept(b, l)
	buf, irp := make([]byte, 1024), wsk.AllocateIRP(1)
	for _, q := range []struct {
		name string
		code uint32
		want ntstatus.Status
	}{
		{"floor", 0x98000001, ntstatus.InvalidDeviceRequest},
		{"records", wsk.SIOQueryWFPConnectionRedirectRecords, ntstatus.Success},
		{"context", wsk.SIOQueryWFPConnectionRedirectContext, ntstatus.Success},
	} {
		b.Run(q.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				irp.Reuse(ntstatus.Success)
				irp.SetCompletionRoutine(keep, nil, wsk.InvokeAlways)
				if st := c.ControlSocket(wsk.Ioctl, q.code, 0, nil, buf, nil, irp); st != q.want {
					b.Fatal(st)
				}
			}
		})
	}
	irp.Free()
	shut(b, a, c, l)
}

// The query allocates nothing, whatever the machine is doing.
func TestQueryAllocatesNothing(t *testing.T) {
	w := open(t, wsk.Debug{})
	l, at := w.listen(t)
	w.redirectTo(t, at, "context")
	a := w.socket(t, wsk.ConnectionSocket, nil)
	must(t, func(p *wsk.IRP) ntstatus.Status { return a.Bind(loopback, 0, p) })
	must(t, func(p *wsk.IRP) ntstatus.Status { return a.Connect(destination, 0, p) })
	c := accept(t, l)
	buf, irp := make([]byte, 1024), wsk.AllocateIRP(1)
	for _, code := range []uint32{wsk.SIOQueryWFPConnectionRedirectRecords, wsk.SIOQueryWFPConnectionRedirectContext} {
		require.Zero(t, testing.AllocsPerRun(100, func() {
			irp.Reuse(ntstatus.Success)
			irp.SetCompletionRoutine(keep, nil, wsk.InvokeAlways)
			c.ControlSocket(wsk.Ioctl, code, 0, nil, buf, nil, irp)
		}))
	}
	irp.Free()
	shut(t, a, c, l)
}

// A byte there and back by IRPs, beside the same with package net.
func BenchmarkEcho(b *testing.B) {
	b.Run("net", func(b *testing.B) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		defer l.Close()
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			buf := make([]byte, 1)
			for {
				if _, err := c.Read(buf); err != nil {
					return
				}
				if _, err := c.Write(buf); err != nil {
					return
				}
			}
		}()
		c, err := net.Dial("tcp", l.Addr().String())
		require.NoError(b, err)
		defer c.Close()
		buf := make([]byte, 1)
		for b.Loop() {
			if _, err := c.Write(buf); err != nil {
				b.Fatal(err)
			}
			if _, err := c.Read(buf); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("wsk", func(b *testing.B) {
		w := open(b, wsk.Debug{})
		l, at := w.listen(b)
		a := w.dial(b, at)
		c := accept(b, l)
		done := make(chan struct{})
		go func() {
			defer close(done)
			buf := make([]byte, 1)
			for {
				if st, _ := run(func(p *wsk.IRP) ntstatus.Status { return c.Receive(buf, 0, p) }); st.Information == 0 {
					return
				}
				run(func(p *wsk.IRP) ntstatus.Status { return c.Send(buf, 0, p) })
			}
		}()
		buf := make([]byte, 1)
		for b.Loop() {
			run(func(p *wsk.IRP) ntstatus.Status { return a.Send(buf, 0, p) })
			run(func(p *wsk.IRP) ntstatus.Status { return a.Receive(buf, 0, p) })
		}
		shut(b, a)
		<-done
		shut(b, c, l)
	})
}
