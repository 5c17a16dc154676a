package wsk

import (
	"slices"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// Events of SO_WSK_EVENT_CALLBACK and WSK_SET_STATIC_EVENT_CALLBACKS (WSK-EVT-01).
const (
	EventSendBacklog uint32 = 0x10       // WSK_EVENT_SEND_BACKLOG
	EventReceive     uint32 = 0x40       // WSK_EVENT_RECEIVE
	EventDisconnect  uint32 = 0x80       // WSK_EVENT_DISCONNECT
	EventReceiveFrom uint32 = 0x100      // WSK_EVENT_RECEIVE_FROM
	EventAccept      uint32 = 0x200      // WSK_EVENT_ACCEPT
	EventDisable     uint32 = 0x80000000 // WSK_EVENT_DISABLE

	// eventInspect goes with SO_CONDITIONAL_ACCEPT and has no bit of WSK's.
	eventInspect uint32 = 0x1
)

// NPIWSKInterfaceID stands for NPI_WSK_INTERFACE_ID, which C passes as a
// pointer to a GUID.
const NPIWSKInterfaceID uint64 = 0x2227E8038D8B11D4

// EventCallbackControl is WSK_EVENT_CALLBACK_CONTROL.
type EventCallbackControl struct {
	NpiID     uint64 // NPIWSKInterfaceID
	EventMask uint32 // Events to enable, or to disable if EventDisable is among them.
}

// Append appends the structure's bytes to b.
func (c EventCallbackControl) Append(b []byte) []byte {
	b = le.AppendUint64(b, c.NpiID)
	return le.AppendUint64(b, uint64(c.EventMask))
}

func parseEventControl(in []byte) (EventCallbackControl, bool) {
	if len(in) != 16 {
		return EventCallbackControl{}, false
	}
	c := EventCallbackControl{le.Uint64(in), le.Uint32(in[8:])}
	return c, c.NpiID == NPIWSKInterfaceID && c.EventMask&^EventDisable != 0
}

// events is a socket's state of callbacks.
type events struct {
	enabled uint32
	static  uint32 // enabled for good
	running []uint32
	waiting []disabling
}

// disabling is an IRP that waits for callbacks to return.
type disabling struct {
	mask uint32
	c    call
}

func (e *events) busy(mask uint32) bool {
	return slices.ContainsFunc(e.running, func(bit uint32) bool { return bit&mask != 0 })
}

// canCall are the events for which the client gave a callback.
func (s *Socket) canCall() (mask uint32) {
	if d := s.listenDispatch(); d != nil && d.AcceptEvent != nil {
		mask |= EventAccept
	}
	if d := s.connectionDispatch(); d != nil {
		for bit, has := range map[uint32]bool{EventReceive: d.ReceiveEvent != nil, EventDisconnect: d.DisconnectEvent != nil, EventSendBacklog: d.SendBacklogEvent != nil} {
			if has {
				mask |= bit
			}
		}
	}
	if d, ok := s.dispatch.(*ClientDatagramDispatch); ok && d != nil && d.ReceiveFromEvent != nil {
		mask |= EventReceiveFrom
	}
	return mask
}

func (s *Socket) listenDispatch() *ClientListenDispatch {
	switch d := s.dispatch.(type) {
	case *ClientListenDispatch:
		return d
	case *ClientStreamDispatch:
		if d != nil {
			return d.Listen
		}
	}
	return nil
}

func (s *Socket) connectionDispatch() *ClientConnectionDispatch {
	switch d := s.dispatch.(type) {
	case *ClientConnectionDispatch:
		return d
	case *ClientStreamDispatch:
		if d != nil {
			return d.Connect
		}
	}
	return nil
}

// attach gives the socket its client's context and table, and enables what the
// client made static.
func (s *Socket) attach(context any, d Dispatch) {
	s.mu.Lock()
	s.context, s.dispatch = context, d
	s.events.static = s.client.staticEvents() & s.canCall()
	s.events.enabled |= s.events.static
	s.mu.Unlock()
	s.kick()
}

// setEventCallback answers SO_WSK_EVENT_CALLBACK. Enabling takes no IRP.
// Disabling waits for callbacks that run: with an IRP the call pends, without
// one it is STATUS_EVENT_PENDING (WSK-CTL-03).
func (s *Socket) setEventCallback(c call, in []byte) ntstatus.Status {
	st, pended := s.switchEvents(c, in)
	switch {
	case pended || c.irp == nil:
		return st
	default:
		return c.done(st, 0)
	}
}

func (s *Socket) switchEvents(c call, in []byte) (st ntstatus.Status, pended bool) {
	ctl, ok := parseEventControl(in)
	disable, mask := ctl.EventMask&EventDisable != 0, ctl.EventMask&^EventDisable
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !ok || mask&^s.canCall() != 0 || !disable && c.irp != nil:
		return ntstatus.InvalidParameter, false
	case !disable:
		s.events.enabled |= mask
		go s.kick()
		return ntstatus.Success, false
	case mask&s.events.static != 0:
		return ntstatus.InvalidDeviceRequest, false
	}
	s.events.enabled &^= mask
	switch {
	case !s.events.busy(mask):
		return ntstatus.Success, false
	case c.irp == nil:
		return ntstatus.EventPending, false
	}
	c.irp.pend(nil)
	s.events.waiting = append(s.events.waiting, disabling{mask, c})
	return ntstatus.Pending, true
}

// kick starts what newly enabled events make possible.
func (s *Socket) kick() {
	s.mu.Lock()
	l, enabled := s.listener, s.events.enabled
	s.mu.Unlock()
	if enabled != 0 {
		s.recv.kick()
	}
	if l != nil {
		l.kick()
	}
}

// event runs a callback if its event is enabled, and reports whether it did.
func (s *Socket) event(bit uint32, callback func()) bool {
	s.mu.Lock()
	if s.closing || s.events.enabled&bit == 0 {
		s.mu.Unlock()
		return false
	}
	s.events.running = append(s.events.running, bit)
	s.calls++ // Closing waits for callbacks.
	s.mu.Unlock()
	if t := s.client.tracer.Load(); t != nil {
		t.print("%s %s", t.socket(s), eventNames[bit])
	}

	callback()

	s.mu.Lock()
	i := slices.Index(s.events.running, bit)
	s.events.running = slices.Delete(s.events.running, i, i+1)
	var done []disabling
	s.events.waiting = slices.DeleteFunc(s.events.waiting, func(d disabling) bool {
		over := !s.events.busy(d.mask)
		if over {
			done = append(done, d)
		}
		return over
	})
	s.mu.Unlock()
	for _, d := range done {
		d.c.finish(ntstatus.Success, 0)
	}
	s.leave()
	return true
}
