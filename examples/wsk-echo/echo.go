// Package echo is the echo server that Microsoft ships as a Winsock Kernel
// sample, carried over call by call: a listening socket with an accept event, a
// worker thread with a queue of operations, an operation context with an IRP for
// each connection, and completion routines that queue the next operation.
package echo

import (
	"net/netip"
	"sync"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

const dataBufferSize = 2048

// A Driver is what DriverEntry sets up and DriverUnload takes down.
type Driver struct {
	registration wsk.Registration
	npi          wsk.ProviderNPI
	worker       workQueue
	listening    *socketContext

	mu      sync.Mutex
	open    int
	allGone sync.Cond
}

// A socketContext is WSKSAMPLE_SOCKET_CONTEXT.
type socketContext struct {
	driver *Driver
	socket *wsk.Socket
	op     *opContext
}

// An opContext is WSKSAMPLE_SOCKET_OP_CONTEXT: an operation with its IRP and buffer.
type opContext struct {
	context *socketContext
	handler func(*opContext)
	irp     *wsk.IRP
	buffer  [dataBufferSize]byte
	length  int
}

// DriverEntry registers with the provider, starts the worker thread and queues
// the listen operation.
func DriverEntry(provider *wsk.Provider) (*Driver, ntstatus.Status) {
	d := new(Driver)
	d.allGone.L = &d.mu
	d.worker.start()
	st := provider.Register(&wsk.ClientNPI{ClientContext: d, Dispatch: &wsk.ClientDispatch{Version: wsk.Version10}}, &d.registration)
	if !st.Ok() {
		d.worker.end()
		return nil, st
	}
	d.listening = d.newSocketContext()
	d.worker.enqueue(d.listening.op, opStartListen)
	return d, ntstatus.Success
}

// Unload is DriverUnload: it stops listening, waits for the connections and
// deregisters.
func (d *Driver) Unload() {
	d.worker.enqueue(d.listening.op, opStopListen)
	d.mu.Lock()
	for d.open > 0 {
		d.allGone.Wait()
	}
	d.mu.Unlock()
	if d.npi.Client != nil {
		d.registration.ReleaseProviderNPI()
	}
	d.registration.Deregister()
	d.worker.end()
}

// Addr is where the server listens, not valid before it does.
func (d *Driver) Addr() (at netip.AddrPort) {
	irp := wsk.AllocateIRP(1)
	defer irp.Free()
	done := make(chan struct{})
	d.worker.enqueue(&opContext{context: d.listening}, func(op *opContext) {
		defer close(done)
		if op.context.socket != nil {
			syncCall(irp, func() ntstatus.Status { return op.context.socket.GetLocalAddress(&at, irp) })
		}
	})
	<-done
	return at
}

func (d *Driver) newSocketContext() *socketContext {
	c := &socketContext{driver: d}
	c.op = &opContext{context: c, irp: wsk.AllocateIRP(1)}
	d.mu.Lock()
	d.open++
	d.mu.Unlock()
	return c
}

func (c *socketContext) free() {
	c.op.irp.Free()
	c.driver.mu.Lock()
	c.driver.open--
	c.driver.allGone.Broadcast()
	c.driver.mu.Unlock()
}

// syncCall is the way of the sample to make a call synchronous: it waits for the
// completion whatever the call returned, and looks at the IRP only (IRP-13).
func syncCall(irp *wsk.IRP, call func() ntstatus.Status) ntstatus.Status {
	completion := make(chan struct{})
	irp.Reuse(ntstatus.Unsuccessful)
	irp.SetCompletionRoutine(syncIrpCompletionRoutine, completion, wsk.InvokeAlways)
	call()
	<-completion
	return irp.IoStatus().Status
}

func syncIrpCompletionRoutine(_ *wsk.IRP, context any) ntstatus.Status {
	close(context.(chan struct{}))
	return ntstatus.MoreProcessingRequired
}
