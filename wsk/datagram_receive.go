package wsk

import (
	"context"
	"net"
	"net/netip"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// datagrams is the receive side of a datagram socket.
type datagrams struct {
	peer, sendTo netip.AddrPort // of the two SIO codes; not valid: none
	unread       []*DatagramIndication
	undecided    *DatagramIndication // came, but the receive was cancelled before the layers let it in
	retained     map[*DatagramIndication]struct{}
}

// ReceiveFrom is WskReceiveFrom: one datagram, which the ALE layers let in.
// remote, control and controlFlags may be nil and are filled before the IRP is
// completed. The first datagram of a redirected flow has its records and context
// as control data if the socket asked for them (SC-80); a datagram that is
// longer than the buffer is cut, which is STATUS_BUFFER_OVERFLOW. flags must be zero.
func (s *Socket) ReceiveFrom(buffer []byte, flags uint32, remote *netip.AddrPort, control *[]ControlMessage, controlFlags *uint32, irp *IRP) (st ntstatus.Status) {
	if t := s.client.tracer.Load(); t != nil {
		defer t.called(s, irp, &st, "WskReceiveFrom", "%d bytes, flags %#x", len(buffer), flags)
	}
	c, st := s.enter(opReceiveFrom, irp)
	if st != ntstatus.Success {
		return st
	}
	packets, st := s.bindings()
	if st == ntstatus.Success && flags != 0 {
		st = ntstatus.InvalidParameter
	}
	if st != ntstatus.Success {
		return c.done(st, 0)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	r := packetRequest(packets, cancel, func() (ntstatus.Status, int) {
		defer cancel()
		d, err := s.nextDatagram(ctx, packets)
		if err != nil {
			return status(err), 0
		}
		return fill(d, buffer, remote, control, controlFlags)
	})
	r.c = c
	c.lend(buffer, true)
	defer s.resume() // Once it is queued: an event must not go before it.
	return s.recv.push(r)
}

func packetRequest(c *net.UDPConn, cancel func(), run func() (ntstatus.Status, int)) *request {
	return &request{run: run, unused: cancel, interrupt: func() { cancel(); c.SetReadDeadline(past) }, resume: func() { c.SetReadDeadline(noLimit) }}
}

func fill(d *DatagramIndication, buffer []byte, remote *netip.AddrPort, control *[]ControlMessage, controlFlags *uint32) (ntstatus.Status, int) {
	st, flags := ntstatus.Success, uint32(0)
	if len(d.Buffer) > len(buffer) {
		st, flags = ntstatus.BufferOverflow, MsgTrunc
	}
	if remote != nil {
		*remote = d.Remote
	}
	if control != nil {
		*control = d.Control
	}
	if controlFlags != nil {
		*controlFlags = flags
	}
	return st, copy(buffer, d.Buffer)
}

// nextDatagram is the next one that is let in. Others are dropped. Only the
// receive worker calls it.
func (s *Socket) nextDatagram(ctx context.Context, packets *net.UDPConn) (*DatagramIndication, error) {
	s.mu.Lock()
	if u := s.dgram.unread; len(u) > 0 {
		s.dgram.unread = u[1:]
		s.mu.Unlock()
		return u[0], nil
	}
	s.mu.Unlock()
	for {
		d, err := s.readDatagram(packets)
		if err != nil {
			return nil, err
		}
		source, flow, created, err := s.ale.ReceiveFrom(ctx, d.Remote)
		switch {
		case err != nil && ctx.Err() != nil:
			s.dgram.undecided = d
			return nil, ctx.Err()
		case err != nil || !s.fromPeer(source):
			continue
		}
		d.Remote = source
		if created {
			d.Control = s.controlData(flow)
		}
		return d, nil
	}
}

func (s *Socket) readDatagram(packets *net.UDPConn) (*DatagramIndication, error) {
	if d := s.dgram.undecided; d != nil {
		s.dgram.undecided = nil
		return d, nil
	}
	buf := make([]byte, maxDatagram)
	n, from, err := packets.ReadFromUDPAddrPort(buf)
	if err != nil {
		return nil, err
	}
	return &DatagramIndication{Buffer: buf[:n:n], Remote: s.inFamily(from)}, nil
}

func (s *Socket) fromPeer(a netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.dgram.peer.IsValid() || s.dgram.peer == a
}

// controlData is what the receiver of a flow's first datagram asked for. One
// that asks later gets nothing (AMB-33).
func (s *Socket) controlData(f *ale.Flow) (out []ControlMessage) {
	hop := f.Records.Last()
	if hop == nil || !f.Accepted() {
		return nil
	}
	s.mu.Lock()
	records, context := s.opts.wantRecords, s.opts.wantContext
	s.mu.Unlock()
	if records {
		if sealed, err := s.enforcer().Seal(f.Records); err == nil {
			out = append(out, ControlMessage{s.ipLevel(), IPWFPRedirectRecords, sealed})
		}
	}
	if context && len(hop.Context) > 0 {
		out = append(out, ControlMessage{s.ipLevel(), IPWFPRedirectContext, hop.Context})
	}
	return out
}

// pumpDatagrams is pump for a datagram socket.
func (s *Socket) pumpDatagrams() *request {
	s.mu.Lock()
	defer s.mu.Unlock()
	packets := s.packets
	if packets == nil || s.closing || s.events.enabled&EventReceiveFrom == 0 || s.in.paused || s.in.broke {
		return nil
	}
	// A receive that comes meanwhile ends the read, and not the decision.
	return packetRequest(packets, func() {}, func() (ntstatus.Status, int) {
		d, err := s.nextDatagram(s.ctx, packets)
		if err != nil {
			return s.datagramsEnd(err), 0
		}
		s.indicateDatagram(d)
		return ntstatus.Success, 0
	})
}

func (s *Socket) datagramsEnd(err error) ntstatus.Status {
	st := status(err)
	if st != ntstatus.Cancelled {
		s.mu.Lock()
		s.in.broke = true
		s.mu.Unlock()
	}
	return st
}

// indicateDatagram runs WskReceiveFromEvent.
func (s *Socket) indicateDatagram(d *DatagramIndication) {
	s.mu.Lock()
	table, _ := s.dispatch.(*ClientDatagramDispatch)
	if s.dgram.retained == nil {
		s.dgram.retained = map[*DatagramIndication]struct{}{}
	}
	s.dgram.retained[d] = struct{}{}
	asked := s.in.asked
	s.mu.Unlock()
	st := ntstatus.DataNotAccepted
	ran := s.event(EventReceiveFrom, func() { st = table.ReceiveFromEvent(s.context, 0, d) })
	if st == ntstatus.Pending {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.dgram.retained, d)
	if st != ntstatus.Success {
		s.dgram.unread, s.in.paused = append(s.dgram.unread, d), ran && asked == s.in.asked
	}
}

// ReleaseDatagram is WskRelease of a datagram socket.
func (s *Socket) ReleaseDatagram(d *DatagramIndication) ntstatus.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.dgram.retained[d]; !ok {
		return ntstatus.InvalidParameter
	}
	delete(s.dgram.retained, d)
	return ntstatus.Success
}
