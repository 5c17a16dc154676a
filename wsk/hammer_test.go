package wsk_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// Cancel, complete and close race on the two ends of many connections. Whatever
// the outcome, each IRP is completed once, no earlier than its call allows, and
// nothing is left (IRP-14, WSK-CLOSE-03).
func TestHammer(t *testing.T) {
	for name, debug := range map[string]wsk.Debug{"inline": {}, "always pend": {AlwaysPend: true}, "random order": {RandomOrder: true}} {
		t.Run(name, func(t *testing.T) {
			var seen watcher
			debug.Verifier = seen.verifier()
			w, end := build(debug)
			l, at := w.listen(t)
			var wg sync.WaitGroup
			for i := range 30 {
				a := w.dial(t, at)
				b := accept(t, l)
				wg.Go(func() {
					hammer(t, rand.New(rand.NewPCG(uint64(i), 1)), a, b)
				})
			}
			wg.Wait()
			shut(t, l)
			end()
			require.Empty(t, seen.all())
			require.Zero(t, w.Store.Len())
		})
	}
}

// hammer starts calls on both sockets, cancels some, and closes the sockets
// under the others.
func hammer(t *testing.T, r *rand.Rand, sockets ...*wsk.Socket) {
	var calls sync.WaitGroup
	var wrong atomic.Pointer[error]
	var irps []*wsk.IRP
	for range 40 {
		s := sockets[r.IntN(2)]
		call := someCall(r, s)
		irp, times := wsk.AllocateIRP(1), new(atomic.Int32)
		calls.Add(1)
		irp.SetCompletionRoutine(func(p *wsk.IRP, _ any) ntstatus.Status {
			st := p.IoStatus()
			if times.Add(1) != 1 || st.Status == ntstatus.Pending || !st.Status.Ok() && st.Information != 0 {
				err := fmt.Errorf("completion %d: %v", times.Load(), st)
				wrong.Store(&err)
			}
			calls.Done()
			return ntstatus.MoreProcessingRequired
		}, nil, wsk.InvokeAlways)
		call(irp)
		if r.IntN(2) == 0 {
			cancels := 1 + r.IntN(2)
			for range cancels {
				calls.Go(func() { irp.Cancel() })
			}
		}
		irps = append(irps, irp)
	}
	for _, s := range sockets {
		shut(t, s)
	}
	calls.Wait()
	for _, irp := range irps {
		irp.Free()
	}
	if err := wrong.Load(); err != nil {
		t.Error(*err)
	}
}

func someCall(r *rand.Rand, s *wsk.Socket) func(*wsk.IRP) ntstatus.Status {
	buf := make([]byte, 1+r.IntN(1<<16))
	switch r.IntN(8) {
	case 0, 1:
		return func(p *wsk.IRP) ntstatus.Status { return s.Send(buf, 0, p) }
	case 2:
		return func(p *wsk.IRP) ntstatus.Status { return s.Receive(buf, 0, p) }
	case 3, 4:
		return func(p *wsk.IRP) ntstatus.Status { return s.Receive(buf, wsk.FlagWaitAll, p) }
	case 5:
		return func(p *wsk.IRP) ntstatus.Status {
			return s.ControlSocket(wsk.Ioctl, wsk.SIOQueryWFPConnectionRedirectRecords, 0, nil, buf, nil, p)
		}
	case 6:
		return func(p *wsk.IRP) ntstatus.Status {
			return s.ControlSocket(wsk.Ioctl, wsk.SIOAddressListChange, 0, nil, nil, nil, p)
		}
	default:
		return func(p *wsk.IRP) ntstatus.Status { return s.Disconnect(nil, uint32(r.IntN(8)/7), p) }
	}
}

// The close of a listener races with accepts, their cancels and connections.
func TestHammerListener(t *testing.T) {
	w := open(t, wsk.Debug{})
	for range 20 {
		l, at := w.listen(t)
		var wg sync.WaitGroup
		for range 8 {
			irp := wsk.AllocateIRP(1)
			wg.Add(1)
			irp.SetCompletionRoutine(func(p *wsk.IRP, _ any) ntstatus.Status {
				if s := p.Socket(); s != nil {
					wg.Go(func() { shut(t, s) })
				}
				wg.Done()
				return ntstatus.MoreProcessingRequired
			}, nil, wsk.InvokeAlways)
			l.Accept(0, nil, nil, nil, nil, irp)
			wg.Go(func() {
				_, s := run(func(p *wsk.IRP) ntstatus.Status {
					return w.SocketConnect(wsk.SockStream, wsk.IPProtoTCP, loopback, at, 0, nil, nil, nil, 0, p)
				})
				if s != nil {
					shut(t, s)
				}
			})
			wg.Go(func() { irp.Cancel() })
		}
		shut(t, l)
		wg.Wait()
	}
	require.Zero(t, w.Store.Len())
}
