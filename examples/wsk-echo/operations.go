package echo

import (
	"net/netip"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

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
