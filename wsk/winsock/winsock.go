// Package winsock is the user-mode form of the redirect control codes: WSAIoctl
// on a socket, with the errors and overlapped calls of Winsock, and one Go API
// that a proxy uses alike on Windows, where it calls the real WSAIoctl, and
// elsewhere, where it asks the engine.
package winsock

import (
	"sync"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A Socket is a SOCKET: a user-mode handle on a WSK socket.
type Socket struct {
	WSK *wsk.Socket // Required.
	// NotFound is the error for a connection that has no records or no context,
	// which no page names. Optional: FWPENotFound, with which Microsoft's sample
	// compares; ErrorNotFound is the other candidate (AMB-21).
	NotFound Error
}

// An Overlapped is a WSAOVERLAPPED. It must not be used for two calls at once.
// The zero value is ready.
type Overlapped struct {
	mu    sync.Mutex
	done  chan struct{}
	bytes uint32
	err   Error
	irp   *wsk.IRP
}

// OverlappedRoutine is a WSAOVERLAPPED_COMPLETION_ROUTINE. When it runs the call is
// over: Result has its result, and the structure may be used again.
type OverlappedRoutine func(err Error, bytes uint32, o *Overlapped)

// WSAIoctl is WSAIoctl for the control codes of package wsk. *returned is the
// number of bytes: of the output, or, after ErrorInsufficientBuffer, those it
// needs. Without an overlapped structure the call waits, returned is required, and
// routine is not called. With one it may return WSAIOPending; the result comes with
// Result and to routine, if that is not nil.
func (s Socket) WSAIoctl(code uint32, in, out []byte, returned *uint32, o *Overlapped, routine OverlappedRoutine) Error {
	switch {
	case returned == nil && o == nil:
		return WSAEFault
	case s.WSK == nil:
		return WSAENotSock
	}
	if code == wsk.SIOSetWFPConnectionRedirectRecords && (len(out) != 0 || !possible(len(in))) {
		return WSAEInval // RED-UM-01, AMB-13
	}
	wait := o == nil
	if wait {
		o, routine = new(Overlapped), nil
	}
	if !o.begin() {
		return WSAEInval
	}
	o.irp.SetCompletionRoutine(func(irp *wsk.IRP, _ any) ntstatus.Status {
		st := irp.IoStatus()
		err := s.translate(st.Status)
		if s.unconnected(code, st.Status) {
			err = WSAENotConn // SC-16
		}
		o.end(err, uint32(st.Information), routine)
		return ntstatus.MoreProcessingRequired
	}, nil, wsk.InvokeAlways)
	st := s.WSK.ControlSocket(wsk.Ioctl, code, 0, in, out, nil, o.irp)
	if st == ntstatus.Pending && !wait {
		return WSAIOPending
	}
	n, err := o.Result(true)
	if returned != nil {
		*returned = n
	}
	return err
}

// possible tells whether records can have this length.
func possible(n int) bool {
	for hops := 1; hops <= redirect.MaxHops; hops++ {
		if redirect.SealedLen(hops) == n {
			return true
		}
	}
	return false
}

func (s Socket) translate(st ntstatus.Status) Error {
	if st == ntstatus.NotFound && s.NotFound != Success {
		return s.NotFound
	}
	return FromStatus(st)
}

// unconnected reports whether a query has no answer since there is no connection. A
// closed socket is none: it has another status.
func (s Socket) unconnected(code uint32, st ntstatus.Status) bool {
	if code != wsk.SIOQueryWFPConnectionRedirectRecords && code != wsk.SIOQueryWFPConnectionRedirectContext {
		return false
	}
	if st != ntstatus.NotFound && st != ntstatus.InvalidDeviceRequest {
		return false
	}
	c := s.WSK.Category()
	return s.WSK.Transport() == nil && c != wsk.DatagramSocket && c != wsk.BasicSocket
}

// begin makes the structure's IRP, unless a call still has it.
func (o *Overlapped) begin() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.irp != nil {
		return false
	}
	o.irp, o.done, o.bytes, o.err = wsk.AllocateIRP(1), make(chan struct{}), 0, WSAIOIncomplete
	return true
}

func (o *Overlapped) end(err Error, n uint32, routine OverlappedRoutine) {
	o.mu.Lock()
	o.bytes, o.err = n, err
	irp, done := o.irp, o.done
	o.irp = nil
	o.mu.Unlock()
	irp.Free()
	close(done) // First: the routine may ask for the result.
	if routine != nil {
		routine(err, n, o)
	}
}

// Result is WSAGetOverlappedResult: WSAIOIncomplete while the call is under way
// and wait is false.
func (o *Overlapped) Result(wait bool) (bytes uint32, err Error) {
	o.mu.Lock()
	done := o.done
	o.mu.Unlock()
	if done == nil {
		return 0, WSAEInval
	}
	if wait {
		<-done
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bytes, o.err
}

// Cancel is CancelIoEx. It reports whether there was something to cancel.
func (o *Overlapped) Cancel() bool {
	o.mu.Lock()
	irp := o.irp
	o.mu.Unlock()
	return irp != nil && irp.Cancel()
}

// Getsockopt is getsockopt, SO_ORIGINAL_DST among its options (REL-01). It
// returns how many bytes of out it wrote.
func (s Socket) Getsockopt(level, name uint32, out []byte) (int, Error) {
	if s.WSK == nil {
		return 0, WSAENotSock
	}
	o := new(Overlapped)
	o.begin()
	var n int
	o.irp.SetCompletionRoutine(func(irp *wsk.IRP, _ any) ntstatus.Status {
		st := irp.IoStatus()
		n = st.Information
		err := s.translate(st.Status)
		if st.Status == ntstatus.InvalidDeviceRequest {
			err = WSAENoProtoOpt
		}
		o.end(err, 0, nil)
		return ntstatus.MoreProcessingRequired
	}, nil, wsk.InvokeAlways)
	s.WSK.ControlSocket(wsk.GetOption, name, level, nil, out, nil, o.irp)
	_, err := o.Result(true)
	return n, err
}
