package wsk_test

import (
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A watcher collects what a verifier reports.
type watcher struct {
	mu   sync.Mutex
	seen []wsk.Violation
}

func (w *watcher) verifier() *wsk.Verifier {
	return &wsk.Verifier{Report: func(v wsk.Violation) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.seen = append(w.seen, v)
	}}
}

func (w *watcher) all() []wsk.Violation {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]wsk.Violation(nil), w.seen...)
}

func keep(*wsk.IRP, any) ntstatus.Status { return ntstatus.MoreProcessingRequired }

func own(fn wsk.CompletionRoutine) *wsk.IRP {
	irp := wsk.AllocateIRP(1)
	irp.SetCompletionRoutine(fn, nil, wsk.InvokeAlways)
	return irp
}

// pendAll starts calls that pend; wait waits for them and frees their IRPs.
func pendAll(t *testing.T, calls ...func(*wsk.IRP) ntstatus.Status) (wait func()) {
	var wg sync.WaitGroup
	var irps []*wsk.IRP
	for _, call := range calls {
		wg.Add(1)
		irp := own(func(*wsk.IRP, any) ntstatus.Status { wg.Done(); return ntstatus.MoreProcessingRequired })
		irps = append(irps, irp)
		require.Equal(t, ntstatus.Pending, call(irp))
	}
	return func() {
		wg.Wait()
		for _, irp := range irps {
			irp.Free()
		}
	}
}

// Every way to misuse an IRP, a buffer or a socket, and what is said about it.
func TestVerifierReports(t *testing.T) {
	for _, c := range []struct {
		name, rule, what string
		do               func(t *testing.T, w *world)
	}{
		{"an IRP that is used while it is in flight", "IRP-14", "calls with an IRP that is in flight", func(t *testing.T, w *world) {
			l, _ := w.listen(t)
			irp, done := wsk.AllocateIRP(1), make(chan struct{})
			irp.SetCompletionRoutine(func(*wsk.IRP, any) ntstatus.Status { close(done); return ntstatus.MoreProcessingRequired }, nil, wsk.InvokeAlways)
			require.Equal(t, ntstatus.Pending, l.Accept(0, nil, nil, nil, nil, irp))
			require.Equal(t, ntstatus.InvalidParameter, l.Accept(0, nil, nil, nil, nil, irp))
			irp.Cancel()
			<-done
			irp.Free()
			shut(t, l)
		}},
		{"a pending IRP that is freed", "IRP-14", "frees an IRP that is in flight", func(t *testing.T, w *world) {
			l, _ := w.listen(t)
			irp, done := wsk.AllocateIRP(1), make(chan struct{})
			irp.SetCompletionRoutine(func(*wsk.IRP, any) ntstatus.Status { close(done); return ntstatus.MoreProcessingRequired }, nil, wsk.InvokeAlways)
			l.Accept(0, nil, nil, nil, nil, irp)
			irp.Free()
			irp.Cancel()
			<-done
			irp.Free()
			shut(t, l)
		}},
		{"an IRP that is used after it was freed", "IRP-03", "calls with an IRP that was freed", func(t *testing.T, w *world) {
			s := w.socket(t, wsk.BasicSocket, nil)
			irp := own(keep)
			s.ControlSocket(wsk.Ioctl, 1, 0, nil, nil, nil, irp)
			irp.Free()
			s.ControlSocket(wsk.Ioctl, 1, 0, nil, nil, nil, irp)
			shut(t, s)
		}},
		{"an IRP that is read after it was freed", "IRP-03", "reads an IRP that was freed", func(t *testing.T, w *world) {
			s := w.socket(t, wsk.BasicSocket, nil)
			irp := own(keep)
			s.ControlSocket(wsk.Ioctl, 1, 0, nil, nil, nil, irp)
			irp.Free()
			_ = irp.IoStatus()
			shut(t, s)
		}},
		{"an IRP that is freed twice", "IRP-03", "frees an IRP that was freed", func(t *testing.T, w *world) {
			s := w.socket(t, wsk.BasicSocket, nil)
			irp := own(keep)
			s.ControlSocket(wsk.Ioctl, 1, 0, nil, nil, nil, irp)
			irp.Free()
			irp.Free()
			shut(t, s)
		}},
		{"a passed-down IRP that is freed", "IRP-04", "frees an IRP that was passed down", func(t *testing.T, w *world) {
			s := w.socket(t, wsk.BasicSocket, nil)
			irp := wsk.BuildIRP(2, func(*wsk.IRP) {})
			irp.CallDriver(func(p *wsk.IRP) ntstatus.Status { return s.ControlSocket(wsk.Ioctl, 1, 0, nil, nil, nil, p) })
			irp.Free()
			shut(t, s)
		}},
		{"a passed-down IRP that is reused", "IRP-11", "reuses an IRP that was passed down", func(t *testing.T, w *world) {
			s := w.socket(t, wsk.BasicSocket, nil)
			irp := wsk.BuildIRP(2, func(*wsk.IRP) {})
			irp.CallDriver(func(p *wsk.IRP) ntstatus.Status { return s.ControlSocket(wsk.Ioctl, 1, 0, nil, nil, nil, p) })
			irp.Reuse(ntstatus.Success)
			shut(t, s)
		}},
		{"an own IRP whose routine lets the completion go on", "IRP-02", "did not return STATUS_MORE_PROCESSING_REQUIRED", func(t *testing.T, w *world) {
			s := w.socket(t, wsk.BasicSocket, nil)
			irp := own(func(*wsk.IRP, any) ntstatus.Status { return ntstatus.Success })
			s.ControlSocket(wsk.Ioctl, 1, 0, nil, nil, nil, irp)
			irp.Free()
			shut(t, s)
		}},
		{"an own IRP without a routine", "IRP-02", "has no routine for success, error and cancel", func(t *testing.T, w *world) {
			s := w.socket(t, wsk.BasicSocket, nil)
			irp := wsk.AllocateIRP(1)
			s.ControlSocket(wsk.Ioctl, 1, 0, nil, nil, nil, irp)
			irp.Free()
			shut(t, s)
		}},
		{"an IRP without a free location", "IRP-01", "has no free stack location", func(t *testing.T, w *world) {
			s := w.socket(t, wsk.BasicSocket, nil)
			irp := wsk.BuildIRP(1, func(*wsk.IRP) {})
			irp.CallDriver(func(p *wsk.IRP) ntstatus.Status { return s.ControlSocket(wsk.Ioctl, 1, 0, nil, nil, nil, p) })
			irp.CompleteRequest()
			shut(t, s)
		}},
		{"an IRP that is completed twice", "IRP-14", "completes a second time", func(t *testing.T, w *world) {
			s := w.socket(t, wsk.BasicSocket, nil)
			told := 0
			irp := wsk.BuildIRP(2, func(*wsk.IRP) { told++ })
			irp.CallDriver(func(p *wsk.IRP) ntstatus.Status { return s.ControlSocket(wsk.Ioctl, 1, 0, nil, nil, nil, p) })
			irp.CompleteRequest()
			require.Equal(t, 1, told, "the owner heard of it twice")
			shut(t, s)
		}},
		{"a routine that completes its IRP and lets the completion go on", "IRP-04", "completed or passed on its IRP and let the completion go on", func(t *testing.T, w *world) {
			s := w.socket(t, wsk.BasicSocket, nil)
			told := 0
			irp := wsk.BuildIRP(2, func(*wsk.IRP) { told++ })
			irp.CallDriver(func(p *wsk.IRP) ntstatus.Status {
				p.SetCompletionRoutine(func(p *wsk.IRP, _ any) ntstatus.Status { p.CompleteRequest(); return ntstatus.Success }, nil, wsk.InvokeAlways)
				return s.ControlSocket(wsk.Ioctl, 1, 0, nil, nil, nil, p)
			})
			require.Equal(t, 1, told, "the owner heard of it twice")
			shut(t, s)
		}},
		{"a routine that frees its IRP and lets the completion go on", "IRP-02", "freed its IRP and let the completion go on", func(t *testing.T, w *world) {
			s := w.socket(t, wsk.BasicSocket, nil)
			irp := own(func(p *wsk.IRP, _ any) ntstatus.Status { p.Free(); return ntstatus.Success })
			s.ControlSocket(wsk.Ioctl, 1, 0, nil, nil, nil, irp)
			shut(t, s)
		}},
		{"an IRP that the client completes while WSK has it", "IRP-14", "completes an IRP that is in flight", func(t *testing.T, w *world) {
			l, _ := w.listen(t)
			done := make(chan struct{})
			irp := wsk.BuildIRP(2, func(*wsk.IRP) { close(done) })
			irp.CallDriver(func(p *wsk.IRP) ntstatus.Status { return l.Accept(0, nil, nil, nil, nil, p) })
			irp.CompleteRequest()
			irp.Cancel()
			<-done
			shut(t, l)
		}},
		{"a buffer that changes while it is sent", "WSK-CTL-07", "a buffer was changed while WSK had it", func(t *testing.T, w *world) {
			l, at := w.listen(t)
			a := w.dial(t, at)
			b := accept(t, l)
			// The second send waits for the first, so that only we touch its buffer.
			big, data := make([]byte, 8<<20), make([]byte, 10)
			wait := pendAll(t,
				func(p *wsk.IRP) ntstatus.Status { return a.Send(big, 0, p) },
				func(p *wsk.IRP) ntstatus.Status { return a.Send(data, 0, p) },
				func(p *wsk.IRP) ntstatus.Status { data[9] = 1; return a.Send([]byte("x"), 0, p) })
			must(t, func(p *wsk.IRP) ntstatus.Status {
				return b.Receive(make([]byte, len(big)+len(data)+1), wsk.FlagWaitAll, p)
			})
			wait()
			shut(t, l, a, b)
		}},
		{"a buffer that changes while it connects", "WSK-CTL-07", "a buffer was changed while WSK had it", func(t *testing.T, w *world) {
			l, at := w.listen(t)
			s := w.socket(t, wsk.ConnectionSocket, nil)
			must(t, func(p *wsk.IRP) ntstatus.Status { return s.Bind(loopback, 0, p) })
			data := make([]byte, 10)
			w.AtConnect(t, func(*fwps.Call, *fwps.Verdict) { data[9] = 1 }) // WSK does not look at it yet.
			must(t, func(p *wsk.IRP) ntstatus.Status { return s.ConnectEx(at, data, 0, p) })
			shut(t, accept(t, l), l, s)
		}},
		{"a datagram that changes while it is sent", "WSK-CTL-07", "a buffer was changed while WSK had it", func(t *testing.T, w *world) {
			s := must(t, func(p *wsk.IRP) ntstatus.Status {
				return w.Socket(wsk.AFInet, wsk.SockDgram, wsk.IPProtoUDP, wsk.DatagramSocket, nil, nil, nil, 0, p)
			})
			must(t, func(p *wsk.IRP) ntstatus.Status { return s.Bind(loopback, 0, p) })
			var at netip.AddrPort
			must(t, func(p *wsk.IRP) ntstatus.Status { return s.GetLocalAddress(&at, p) })
			data := make([]byte, 10)
			w.AtConnect(t, func(*fwps.Call, *fwps.Verdict) { data[9] = 1 })
			must(t, func(p *wsk.IRP) ntstatus.Status { return s.SendTo(data, 0, at, nil, p) })
			shut(t, s)
		}},
		{"a buffer that changes while it is received into", "WSK-CTL-07", "a buffer was changed while WSK had it", func(t *testing.T, w *world) {
			l, at := w.listen(t)
			a := w.dial(t, at)
			b := accept(t, l)
			buf := make([]byte, 10)
			wait := pendAll(t,
				func(p *wsk.IRP) ntstatus.Status { return b.Receive(make([]byte, 1), 0, p) },
				func(p *wsk.IRP) ntstatus.Status { return b.Receive(buf, 0, p) },
				func(p *wsk.IRP) ntstatus.Status { buf[9] = 1; return b.Receive(make([]byte, 1), 0, p) })
			must(t, func(p *wsk.IRP) ntstatus.Status { return a.Send([]byte("x"), 0, p) })
			must(t, func(p *wsk.IRP) ntstatus.Status { return a.Send([]byte("y"), 0, p) })
			must(t, func(p *wsk.IRP) ntstatus.Status { return a.Disconnect(nil, 0, p) })
			wait()
			shut(t, l, a, b)
		}},
		{"a call on a socket that was closed", "WSK-CLOSE-01", "calls on a socket that was closed", func(t *testing.T, w *world) {
			s := w.socket(t, wsk.ConnectionSocket, nil)
			shut(t, s)
			var a netip.AddrPort
			run(func(p *wsk.IRP) ntstatus.Status { return s.GetLocalAddress(&a, p) })
		}},
		{"a call without an IRP on a socket that was closed", "WSK-CLOSE-01", "calls on a socket that was closed", func(t *testing.T, w *world) {
			s := w.socket(t, wsk.BasicSocket, nil)
			shut(t, s)
			n := 0
			require.Equal(t, ntstatus.FileForcedClosed, s.ControlSocket(wsk.Ioctl, wsk.SIOAddressListQuery, 0, nil, nil, &n, nil))
		}},
		{"an indication that is released twice", "WSK-RELEASE-01", "releases an indication that is not retained", func(t *testing.T, w *world) {
			s := w.socket(t, wsk.ConnectionSocket, nil)
			s.Release(&wsk.DataIndication{})
			shut(t, s)
		}},
		{"an IRP that is left at deregistration", "IRP-03", "an IRP was not freed", func(t *testing.T, w *world) {
			s := w.socket(t, wsk.BasicSocket, nil)
			s.ControlSocket(wsk.Ioctl, 1, 0, nil, nil, nil, own(keep))
			shut(t, s)
		}},
		{"a passed-down IRP that is kept for ever", "IRP-04", "was kept and not completed", func(t *testing.T, w *world) {
			s := w.socket(t, wsk.BasicSocket, nil)
			irp := wsk.BuildIRP(2, func(*wsk.IRP) {})
			irp.CallDriver(func(p *wsk.IRP) ntstatus.Status {
				p.SetCompletionRoutine(keep, nil, wsk.InvokeAlways)
				return s.ControlSocket(wsk.Ioctl, 1, 0, nil, nil, nil, p)
			})
			shut(t, s)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var seen watcher
			w, end := build(wsk.Debug{Verifier: seen.verifier()})
			c.do(t, w)
			end()
			all := seen.all()
			require.Len(t, all, 1, "%v", all)
			require.Equal(t, c.rule, all[0].Rule)
			require.Contains(t, all[0].Error(), c.what)
			if all[0].At != (wsk.Site{}) {
				require.Contains(t, all[0].At.Function, "TestVerifierReports", "the call site is the client's")
				require.True(t, strings.HasSuffix(all[0].At.File, "verifier_test.go"), all[0].At.File)
				require.Contains(t, all[0].Error(), "verifier_test.go:")
			}
		})
	}
}

// WSK-REG-06: a socket that its client can no longer close is a leak.
func TestVerifierReportsLeakedSocket(t *testing.T) {
	var seen watcher
	w, end := build(wsk.Debug{Verifier: seen.verifier()})
	s := w.socket(t, wsk.ListenSocket, nil)
	gone := make(chan struct{})
	go func() { end(); close(gone) }()
	for len(seen.all()) == 0 {
		runtime.Gosched()
	}
	shut(t, s)
	<-gone
	v := seen.all()
	require.Len(t, v, 1)
	require.Equal(t, "WSK-REG-06", v[0].Rule)
	require.Contains(t, v[0].At.Function, "world).socket")
}

// WSK-REG-04: who has released the provider does not use it, nor release it again.
func TestVerifierReportsUseAfterRelease(t *testing.T) {
	var seen watcher
	w, end := build(wsk.Debug{Verifier: seen.verifier()})
	end()
	st, _ := run(func(irp *wsk.IRP) ntstatus.Status {
		return w.Socket(wsk.AFInet, wsk.SockStream, wsk.IPProtoTCP, wsk.BasicSocket, nil, nil, nil, 0, irp)
	})
	require.Equal(t, ntstatus.DeviceNotReady, st.Status)
	end()
	all := seen.all()
	require.Len(t, all, 2)
	require.Equal(t, "WSK-REG-04", all[0].Rule)
	require.Contains(t, all[0].What, "uses the provider that it has released")
	require.Contains(t, all[0].At.Function, "TestVerifierReportsUseAfterRelease")
	require.Equal(t, "WSK-REG-04", all[1].Rule)
	require.Contains(t, all[1].What, "once too often")
}

func TestVerifierPanicsWithoutReport(t *testing.T) {
	w, end := build(wsk.Debug{Verifier: new(wsk.Verifier)})
	s := w.socket(t, wsk.BasicSocket, nil)
	irp := own(keep)
	s.ControlSocket(wsk.Ioctl, 1, 0, nil, nil, nil, irp)
	irp.Free()
	require.Panics(t, irp.Free)
	shut(t, s)
	end()
}

// A client that does everything right is not reported.
func TestVerifierIsSilentAboutGoodClients(t *testing.T) {
	var seen watcher
	w, end := build(wsk.Debug{Verifier: seen.verifier(), RandomOrder: true})
	l, at := w.listen(t)
	a := w.dial(t, at)
	b := accept(t, l)
	must(t, func(p *wsk.IRP) ntstatus.Status { return a.Send([]byte("hello"), 0, p) })
	must(t, func(p *wsk.IRP) ntstatus.Status { return b.Receive(make([]byte, 5), wsk.FlagWaitAll, p) })
	must(t, func(p *wsk.IRP) ntstatus.Status { return b.Disconnect(nil, 0, p) })
	shut(t, a, b, l)
	end()
	require.Empty(t, seen.all())
}
