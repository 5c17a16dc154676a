package wsk

import (
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// ControlSocketType is WSK_CONTROL_SOCKET_TYPE.
type ControlSocketType uint32

// What ControlSocket does.
const (
	SetOption ControlSocketType = 0 // WskSetOption
	GetOption ControlSocketType = 1 // WskGetOption
	Ioctl     ControlSocketType = 2 // WskIoctl
)

// irpRule says what a control code wants of the Irp argument (WSK-CTL-08).
type irpRule uint8

const (
	irpRequired irpRule = iota
	irpForbidden
	irpOptional
)

// A control is one code. Of run and wait it has one.
type control struct {
	name string // the C name, for traces
	irp  irpRule
	on   Category // the categories that know the code, or-ed; allSockets for all
	// sized says that the size of the output is only in *returned.
	sized bool
	// run answers at once, with the number of bytes. The socket is locked.
	run func(s *Socket, code uint32, in, out []byte) (ntstatus.Status, int)
	// wait answers by itself. The call has no IRP if the client gave none.
	wait func(s *Socket, c call, in []byte) ntstatus.Status
}

const (
	allSockets Category = 1 << 31
	connects            = ConnectionSocket | StreamSocket
	listens             = ListenSocket | StreamSocket
	transports          = listens | connects | DatagramSocket
)

func (k *control) knownBy(c Category) bool { return k.on == allSockets || k.on&c != 0 }

type option struct {
	typ         ControlSocketType
	level, code uint32
}

func lookup(typ ControlSocketType, code, level uint32) *control {
	if typ == Ioctl { // Whatever the level (WSK-CTL-02).
		return ioctls[code]
	}
	return socketOptions[option{typ, level, code}]
}

// ControlSocket is WskControlSocket. With an IRP the number of bytes is its
// Information, and also *returned if that is not nil (RED-Q-06); without one it
// is *returned. It is zero for a call that failed early, such as on a closed socket.
// Buffers are the socket's until the IRP is completed.
func (s *Socket) ControlSocket(typ ControlSocketType, code, level uint32, in, out []byte, returned *int, irp *IRP) (st ntstatus.Status) {
	if t := s.client.tracer.Load(); t != nil {
		defer t.called(s, irp, &st, "WskControlSocket", "%v, %s, level %#x, in %d, out %d", typ, controlName(lookup(typ, code, level), code), level, len(in), len(out))
	}
	if returned != nil {
		*returned = 0
	}
	k := lookup(typ, code, level)
	if k != nil && !k.knownBy(s.category) {
		k = nil
	}
	if irp == nil {
		return s.controlInline(k, code, in, out, returned)
	}
	c, st := s.enter(opControlSocket, irp)
	if st != ntstatus.Success {
		return st
	}
	c.lend(in, false)
	c.lend(out, true)
	n := 0
	switch {
	case k == nil:
		st = ntstatus.InvalidDeviceRequest // WSK-CTL-09
	case k.irp == irpForbidden:
		st = ntstatus.InvalidParameter
	case k.wait != nil:
		return k.wait(s, c, in)
	case c.client.provider.late != nil:
		return s.controlLater(c, k, code, in, out, returned)
	default:
		c.ask(func() { st, n = s.control(k, code, in, out) })
	}
	if returned != nil {
		*returned = n // Before the IRP is completed (AMB-02).
	}
	return c.done(st, n)
}

// controlLater is ControlSocket for a provider that always pends: the request can
// be cancelled until it is its turn.
func (s *Socket) controlLater(c call, k *control, code uint32, in, out []byte, returned *int) ntstatus.Status {
	nothing := func() {}
	return s.ctl.push(&request{c: c, interrupt: nothing, resume: nothing, run: func() (ntstatus.Status, int) {
		st, n := s.control(k, code, in, out)
		if returned != nil {
			*returned = n
		}
		return st, n
	}})
}

// controlInline is ControlSocket without an IRP: nothing may be left to do.
func (s *Socket) controlInline(k *control, code uint32, in, out []byte, returned *int) ntstatus.Status {
	switch {
	case k == nil:
		return ntstatus.InvalidDeviceRequest
	case k.irp == irpRequired:
		return ntstatus.RequestNotAccepted // WSK-CTL-04, AMB-05
	case k.sized && returned == nil:
		return ntstatus.InvalidParameter // WSK-CTL-05
	}
	s.mu.Lock()
	closing, gone := s.closing, s.closing || s.aborted
	s.mu.Unlock()
	if closing {
		s.misused("WSK-CLOSE-01", "calls on a socket that was closed")
	}
	if gone {
		return ntstatus.FileForcedClosed
	}
	if k.wait != nil {
		return k.wait(s, call{}, in)
	}
	st, n := s.control(k, code, in, out)
	if returned != nil {
		*returned = n
	}
	return st
}

func (s *Socket) control(k *control, code uint32, in, out []byte) (ntstatus.Status, int) {
	if fault := s.client.provider.opts.Debug.Fault; fault != nil {
		if st := fault(code); st != ntstatus.Success {
			return st, 0
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return k.run(s, code, in, out)
}
