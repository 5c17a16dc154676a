package wsk

import (
	"bytes"
	"errors"
	"io"

	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/transport"
)

// readAhead bounds what a socket takes from the transport without being asked,
// and what its client may retain, in bytes.
const readAhead = 64 << 10

// receiving is the receive side of a connection. Its worker is the only one
// that reads.
type receiving struct {
	unread   []byte // came, and is for the next receive or indication
	paused   bool   // an indication was not accepted
	asked    int    // receives, which end the pause
	retained map[*DataIndication]int
	held     int // bytes retained
	finRead  bool
	broke    bool   // reset
	told     uint32 // the events that told of the peer's disconnect
}

// Receive is WskReceive; Information is the number of bytes, and zero with
// success the peer's graceful close (WSK-RECV-01). FlagWaitAll waits for a full
// buffer. FlagDrain needs an empty one and discards what comes until the peer
// closes. A receive goes before receive events (WSK-RECV-02) and enables them
// again after STATUS_DATA_NOT_ACCEPTED; one of no length does only that.
func (s *Socket) Receive(buffer []byte, flags uint32, irp *IRP) (st ntstatus.Status) {
	if t := s.client.tracer.Load(); t != nil {
		defer t.called(s, irp, &st, "WskReceive", "%d bytes, flags %#x", len(buffer), flags)
	}
	c, st := s.enter(opReceive, irp)
	if st != ntstatus.Success {
		return st
	}
	return s.receive(c, buffer, flags)
}

func (s *Socket) receive(c call, buffer []byte, flags uint32) ntstatus.Status {
	conn, st := s.transferable(false)
	switch {
	case st != ntstatus.Success:
	case flags&^(FlagWaitAll|FlagDrain) != 0:
		st = ntstatus.NotSupported
	case flags == FlagWaitAll|FlagDrain, flags == FlagDrain && len(buffer) > 0:
		st = ntstatus.InvalidParameter
	}
	if st != ntstatus.Success {
		return c.done(st, 0)
	}
	if len(buffer) == 0 && flags != FlagDrain {
		s.resume()
		return c.done(ntstatus.Success, 0)
	}
	r := readRequest(conn, func() (ntstatus.Status, int) { return s.read(conn, buffer, flags) })
	r.c = c
	c.lend(buffer, true)
	defer s.resume() // Once it is queued: an event must not go before it.
	return s.recv.push(r)
}

// resume lets indications go on.
func (s *Socket) resume() {
	s.mu.Lock()
	s.in.paused = false
	s.in.asked++
	enabled := s.events.enabled
	s.mu.Unlock()
	if enabled != 0 {
		s.recv.kick()
	}
}

func readRequest(conn *transport.Conn, run func() (ntstatus.Status, int)) *request {
	return &request{run: run, interrupt: func() { conn.SetReadDeadline(past) }, resume: func() { conn.SetReadDeadline(noLimit) }}
}

func (s *Socket) read(conn *transport.Conn, buffer []byte, flags uint32) (ntstatus.Status, int) {
	if flags != FlagDrain { // Whose client gets nothing: it closes, which no callout may hold up.
		if st := s.authorized(s.ctx); st != ntstatus.Success {
			return st, 0
		}
	}
	n := s.takeUnread(buffer, flags == FlagDrain)
	var err error
	switch {
	case flags == FlagDrain:
		if _, err = io.Copy(io.Discard, conn); err == nil {
			err = io.EOF
		}
	case flags == FlagWaitAll && n < len(buffer):
		var more int
		more, err = io.ReadFull(conn, buffer[n:])
		n += more
	case n == 0:
		n, err = conn.Read(buffer)
	}
	return s.received(buffer[:n], err)
}

func (s *Socket) takeUnread(buffer []byte, all bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := copy(buffer, s.in.unread)
	s.in.unread = s.in.unread[n:]
	if all {
		s.in.unread = nil
	}
	return n
}

// received notes how a read ended. The bytes of one that failed, a receive that
// was cancelled, go to the next.
func (s *Socket) received(data []byte, err error) (ntstatus.Status, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		s.in.finRead = true
	case err != nil:
		s.in.unread = append(bytes.Clone(data), s.in.unread...)
		st := s.broken(err)
		s.in.broke = s.in.broke || st != ntstatus.Cancelled
		return st, 0
	}
	return ntstatus.Success, len(data)
}

// broken is the status of an operation that the transport ended. The socket is
// locked.
func (s *Socket) broken(err error) ntstatus.Status {
	if s.aborted {
		return ntstatus.ConnectionAborted
	}
	st := status(err)
	if st == ntstatus.InvalidDeviceState { // It was connected: the peer has reset it, and somebody else heard of that.
		st = ntstatus.ConnectionReset
	}
	return st
}

// pump is the receive worker's next request when no IRP waits: to indicate, to
// read ahead, or to tell of the peer's disconnect.
func (s *Socket) pump() *request {
	s.mu.Lock()
	defer s.mu.Unlock()
	in, conn := &s.in, s.conn
	receives, disconnects := s.events.enabled&EventReceive != 0, s.events.enabled&EventDisconnect != 0
	if conn == nil || s.closing || !receives && !disconnects {
		return nil
	}
	ended := in.finRead || in.broke || s.aborted
	indicates := receives && !in.paused && in.held < readAhead
	switch {
	case len(in.unread) > 0 && indicates:
		return readRequest(conn, s.indicate)
	case ended && s.untold() != 0 && (len(in.unread) == 0 || !receives || in.paused):
		return readRequest(conn, s.tellDisconnect)
	case !ended && len(in.unread) < readAhead:
		return readRequest(conn, func() (ntstatus.Status, int) { return s.ahead(conn) })
	}
	return nil
}

func (s *Socket) ahead(conn *transport.Conn) (ntstatus.Status, int) {
	if st := s.authorized(s.ctx); st != ntstatus.Success {
		return st, 0
	}
	b := make([]byte, readAhead)
	n, err := conn.Read(b)
	st, n := s.received(b[:n], err)
	s.mu.Lock()
	s.in.unread = append(s.in.unread, b[:n]...)
	s.mu.Unlock()
	return st, n
}

// indicate runs WskReceiveEvent with all that came. What it retains may be
// released before the callback has returned.
func (s *Socket) indicate() (ntstatus.Status, int) {
	s.mu.Lock()
	data := s.in.unread
	s.in.unread = nil
	d, ind := s.connectionDispatch(), &DataIndication{Buffer: data}
	if s.in.retained == nil {
		s.in.retained = map[*DataIndication]int{}
	}
	s.in.retained[ind] = len(data)
	s.in.held += len(data)
	asked := s.in.asked
	s.mu.Unlock()
	accepted, st := len(data), ntstatus.DataNotAccepted
	ran := s.event(EventReceive, func() { st = d.ReceiveEvent(s.context, 0, ind, len(data), &accepted) })
	if st == ntstatus.Pending {
		return ntstatus.Success, 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(ind)
	if st != ntstatus.Success {
		accepted = 0
	}
	if accepted = min(max(accepted, 0), len(data)); accepted < len(data) {
		// Unless a receive came meanwhile, or the event was disabled and nobody was asked.
		s.in.unread, s.in.paused = data[accepted:], ran && asked == s.in.asked
	}
	return ntstatus.Success, 0
}

// forget takes an indication out of what is retained. The socket is locked.
func (s *Socket) forget(ind *DataIndication) bool {
	n, ok := s.in.retained[ind]
	delete(s.in.retained, ind)
	s.in.held -= n
	return ok
}

// untold are the enabled events that have not told of the peer's disconnect. The
// socket is locked.
func (s *Socket) untold() uint32 {
	tell := EventDisconnect
	if !s.in.finRead {
		tell |= EventReceive // Without data: the connection is dead.
	}
	return tell & s.events.enabled &^ s.in.told
}

// tellDisconnect runs WskDisconnectEvent, and WskReceiveEvent without data for
// a connection that is dead.
func (s *Socket) tellDisconnect() (ntstatus.Status, int) {
	s.mu.Lock()
	d, broke, untold := s.connectionDispatch(), !s.in.finRead, s.untold()
	s.mu.Unlock()
	var flags, told uint32
	if broke {
		flags = FlagAbortive
	}
	if untold&EventDisconnect != 0 && s.event(EventDisconnect, func() { d.DisconnectEvent(s.context, flags) }) {
		told |= EventDisconnect
	}
	if untold&EventReceive != 0 && s.event(EventReceive, func() { n := 0; d.ReceiveEvent(s.context, 0, nil, 0, &n) }) {
		told |= EventReceive
	}
	s.mu.Lock()
	s.in.told |= told
	s.mu.Unlock()
	return ntstatus.Success, 0
}

// Release is WskRelease: it gives back an indication that ReceiveEvent retained
// with STATUS_PENDING. There is no IRP (WSK-RELEASE-01).
func (s *Socket) Release(data *DataIndication) ntstatus.Status {
	s.mu.Lock()
	ok := s.forget(data)
	s.mu.Unlock()
	if !ok {
		s.misused("WSK-RELEASE-01", "releases an indication that is not retained")
		return ntstatus.InvalidParameter
	}
	s.recv.kick()
	return ntstatus.Success
}
