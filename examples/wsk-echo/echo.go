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

// A workQueue is WSKSAMPLE_WORK_QUEUE with the thread that empties it.
type workQueue struct {
	mu   sync.Mutex
	more sync.Cond
	list []*opContext
	stop bool
	done chan struct{}
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

// opStartListen captures the provider, makes the listening socket, enables its
// accept event and binds it.
func opStartListen(op *opContext) {
	c, d := op.context, op.context.driver
	if st := d.registration.CaptureProviderNPI(wsk.InfiniteWait, &d.npi); !st.Ok() {
		return
	}
	st := syncCall(op.irp, func() ntstatus.Status {
		return d.npi.Client.Socket(wsk.AFInet, wsk.SockStream, wsk.IPProtoTCP, wsk.ListenSocket, c,
			&wsk.ClientListenDispatch{AcceptEvent: acceptEvent}, nil, 0, op.irp)
	})
	if !st.Ok() {
		return
	}
	c.socket = op.irp.Socket()
	events := wsk.EventCallbackControl{NpiID: wsk.NPIWSKInterfaceID, EventMask: wsk.EventAccept}.Append(nil)
	st = c.socket.ControlSocket(wsk.SetOption, wsk.SOWSKEventCallback, wsk.SolSocket, events, nil, nil, nil)
	if st.Ok() {
		at := netip.MustParseAddrPort("127.0.0.1:0")
		st = syncCall(op.irp, func() ntstatus.Status { return c.socket.Bind(at, 0, op.irp) })
	}
	if !st.Ok() {
		op.context.stopListening()
	}
}

// opStopListen closes the listening socket.
func opStopListen(op *opContext) {
	op.context.stopListening()
	op.context.free()
}

func (c *socketContext) stopListening() {
	if s := c.socket; s != nil {
		c.socket = nil
		syncCall(c.op.irp, func() ntstatus.Status { return s.CloseSocket(c.op.irp) })
	}
}

// acceptEvent is WskSampleAcceptEvent: it takes the connection and queues its
// first receive.
func acceptEvent(listener any, _ uint32, _, _ netip.AddrPort, accepted *wsk.Socket) (any, *wsk.ClientConnectionDispatch, ntstatus.Status) {
	if accepted == nil {
		return nil, nil, ntstatus.RequestNotAccepted
	}
	d := listener.(*socketContext).driver
	c := d.newSocketContext()
	c.socket = accepted
	d.worker.enqueue(c.op, opReceive)
	return c, &wsk.ClientConnectionDispatch{DisconnectEvent: disconnectEvent}, ntstatus.Success
}

// disconnectEvent is WskSampleDisconnectEvent. It is not enabled: a receive that
// is pended hears of the peer as well.
func disconnectEvent(any, uint32) ntstatus.Status { return ntstatus.Success }

// opReceive waits for data.
func opReceive(op *opContext) {
	op.irp.Reuse(ntstatus.Unsuccessful)
	op.irp.SetCompletionRoutine(receiveIrpCompletionRoutine, op, wsk.InvokeAlways)
	op.context.socket.Receive(op.buffer[:], 0, op.irp)
}

// receiveIrpCompletionRoutine sends the data back, or ends the connection when
// the peer has.
func receiveIrpCompletionRoutine(irp *wsk.IRP, context any) ntstatus.Status {
	op := context.(*opContext)
	worker := &op.context.driver.worker
	switch st := irp.IoStatus(); {
	case !st.Status.Ok():
		worker.enqueue(op, opClose)
	case st.Information == 0:
		worker.enqueue(op, opDisconnect)
	default:
		op.length = st.Information
		worker.enqueue(op, opSend)
	}
	return ntstatus.MoreProcessingRequired
}

// opSend sends back what was received.
func opSend(op *opContext) {
	op.irp.Reuse(ntstatus.Unsuccessful)
	op.irp.SetCompletionRoutine(sendIrpCompletionRoutine, op, wsk.InvokeAlways)
	op.context.socket.Send(op.buffer[:op.length], 0, op.irp)
}

func sendIrpCompletionRoutine(irp *wsk.IRP, context any) ntstatus.Status {
	op := context.(*opContext)
	next := opReceive
	if !irp.IoStatus().Status.Ok() {
		next = opClose
	}
	op.context.driver.worker.enqueue(op, next)
	return ntstatus.MoreProcessingRequired
}

// opDisconnect ends our side.
func opDisconnect(op *opContext) {
	op.irp.Reuse(ntstatus.Unsuccessful)
	op.irp.SetCompletionRoutine(disconnectIrpCompletionRoutine, op, wsk.InvokeAlways)
	op.context.socket.Disconnect(nil, 0, op.irp)
}

func disconnectIrpCompletionRoutine(_ *wsk.IRP, context any) ntstatus.Status {
	op := context.(*opContext)
	op.context.driver.worker.enqueue(op, opClose)
	return ntstatus.MoreProcessingRequired
}

// opClose closes the socket; its completion frees the context.
func opClose(op *opContext) {
	op.irp.Reuse(ntstatus.Unsuccessful)
	op.irp.SetCompletionRoutine(closeIrpCompletionRoutine, op, wsk.InvokeAlways)
	op.context.socket.CloseSocket(op.irp)
}

func closeIrpCompletionRoutine(_ *wsk.IRP, context any) ntstatus.Status {
	context.(*opContext).context.free()
	return ntstatus.MoreProcessingRequired
}

// start is WskSampleStartWorkerThread.
func (q *workQueue) start() {
	q.more.L = &q.mu
	q.done = make(chan struct{})
	go q.thread()
}

// enqueue is WskSampleEnqueueOp.
func (q *workQueue) enqueue(op *opContext, handler func(*opContext)) {
	q.mu.Lock()
	op.handler = handler
	q.list = append(q.list, op)
	q.mu.Unlock()
	q.more.Signal()
}

// thread is WskSampleWorkerThread.
func (q *workQueue) thread() {
	defer close(q.done)
	for {
		q.mu.Lock()
		for len(q.list) == 0 && !q.stop {
			q.more.Wait()
		}
		list := q.list
		q.list = nil
		q.mu.Unlock()
		if len(list) == 0 {
			return
		}
		for _, op := range list {
			op.handler(op)
		}
	}
}

// end is WskSampleStopWorkerThread.
func (q *workQueue) end() {
	q.mu.Lock()
	q.stop = true
	q.mu.Unlock()
	q.more.Signal()
	<-q.done
}
