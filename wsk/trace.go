package wsk

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// Trace prints every call of a client, every completion and every event
// callback to w, a line each, as strace prints system calls:
//
//	s2 WskConnect(irp 5, 198.51.100.7:80, flags 0x0) = STATUS_PENDING
//	irp 5: STATUS_SUCCESS
//
// Sockets and IRPs have the numbers in which the trace met them. A call that
// pends may be printed after its completion. The returned function ends the
// trace. What w answers to is not looked at.
func Trace(w io.Writer, c *Client) (stop func()) {
	t := &tracer{w: w}
	c.tracer.Store(t)
	return func() { c.tracer.CompareAndSwap(t, nil) }
}

type tracer struct {
	irps, sockets atomic.Uint64

	mu sync.Mutex
	w  io.Writer
}

func (t *tracer) print(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.w, format+"\n", args...)
}

// number is the number of an IRP or a socket, given when it is first met.
func number(at, next *atomic.Uint64) uint64 {
	if n := at.Load(); n != 0 {
		return n
	}
	at.CompareAndSwap(0, next.Add(1))
	return at.Load()
}

func (t *tracer) irp(p *IRP) string {
	if p == nil {
		return "no irp"
	}
	return fmt.Sprintf("irp %d", number(&p.number, &t.irps))
}

func (t *tracer) socket(s *Socket) string {
	if s == nil {
		return "no socket"
	}
	return fmt.Sprintf("s%d", number(&s.number, &t.sockets))
}

// call prints a call of the client when it returns.
func (t *tracer) call(irp *IRP, st *ntstatus.Status, name, format string, args ...any) {
	text := t.irp(irp)
	if format != "" {
		text += ", " + fmt.Sprintf(format, args...)
	}
	t.print("%s(%s) = %v", name, text, *st)
}

// called prints a call of a socket when it returns.
func (t *tracer) called(s *Socket, irp *IRP, st *ntstatus.Status, name, format string, args ...any) {
	t.call(irp, st, t.socket(s)+" "+name, format, args...)
}

// completes prints a completion. It comes before it, while the IRP is WSK's.
func (t *tracer) completes(p *IRP, st ntstatus.Status, n int) {
	text := fmt.Sprintf("%s: %v", t.irp(p), st)
	if n != 0 {
		text += fmt.Sprintf(", %d bytes", n)
	}
	if made := p.Socket(); made != nil {
		text += ", " + t.socket(made)
	}
	t.print("%s", text)
}

var eventNames = map[uint32]string{EventSendBacklog: "WskSendBacklogEvent", EventReceive: "WskReceiveEvent", EventDisconnect: "WskDisconnectEvent",
	EventReceiveFrom: "WskReceiveFromEvent", EventAccept: "WskAcceptEvent", eventInspect: "WskInspectEvent"}

// controlName is what a control code is called.
func controlName(k *control, code uint32) string {
	if k == nil || k.name == "" {
		return fmt.Sprintf("%#x", code)
	}
	return k.name
}

var controlTypes = [...]string{SetOption: "WskSetOption", GetOption: "WskGetOption", Ioctl: "WskIoctl"}

func (t ControlSocketType) String() string {
	if int(t) < len(controlTypes) {
		return controlTypes[t]
	}
	return fmt.Sprintf("ControlSocketType(%d)", uint32(t))
}

func (c Category) String() string {
	names := map[Category]string{BasicSocket: "BASIC", ListenSocket: "LISTEN", ConnectionSocket: "CONNECTION", DatagramSocket: "DATAGRAM", StreamSocket: "STREAM"}
	if n, ok := names[c]; ok {
		return "WSK_FLAG_" + n + "_SOCKET"
	}
	return fmt.Sprintf("Category(%#x)", uint32(c))
}
