package wsk

import (
	"context"
	"net"
	"net/netip"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// Types of control messages, at level IPPROTO_IP or IPPROTO_IPV6. They are
// options of a datagram socket too, by which a receiver asks for them (RED-UM-11).
const (
	IPWFPRedirectRecords uint32 = 60 // IP_WFP_REDIRECT_RECORDS, IPV6_WFP_REDIRECT_RECORDS
	IPWFPRedirectContext uint32 = 70 // IP_WFP_REDIRECT_CONTEXT, IPV6_WFP_REDIRECT_CONTEXT
)

// A ControlMessage is a WSACMSGHDR with its data.
type ControlMessage struct {
	Level, Type uint32
	Data        []byte
}

// MsgTrunc is the control flag of a datagram that was longer than the buffer.
const MsgTrunc uint32 = 0x100 // MSG_TRUNC

const maxDatagram = 64 << 10

// datagrams is the receive side of a datagram socket.
type datagrams struct {
	peer, sendTo netip.AddrPort // of the two SIO codes; not valid: none
	unread       []*DatagramIndication
	undecided    *DatagramIndication // came, but the receive was cancelled before the layers let it in
	retained     map[*DatagramIndication]struct{}
}

// takeDatagram binds the real socket. The socket is locked.
func (s *Socket) takeDatagram(want netip.AddrPort) (netip.AddrPort, error) {
	s.letGo()
	network := "udp6"
	switch {
	case s.family == AFInet:
		network = "udp4"
	case s.opts.dualStack:
		network = "udp"
	}
	c, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(want))
	if err != nil {
		return netip.AddrPort{}, err
	}
	s.packets, s.local = c, s.inFamily(c.LocalAddr().(*net.UDPAddr).AddrPort())
	return s.local, s.applyOptions()
}

// bindings is the real socket if there is one.
func (s *Socket) bindings() (*net.UDPConn, ntstatus.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state < bound {
		return nil, ntstatus.InvalidDeviceState
	}
	return s.packets, ntstatus.Success
}

// SendTo is WskSendTo: one datagram, through the ALE layers. An address that is
// not valid stands for the one of SIO_WSK_SET_SENDTO_ADDRESS or
// SIO_WSK_SET_REMOTE_ADDRESS. Redirect records as control data count for the
// flow that this datagram creates (RED-UM-10). flags must be zero.
func (s *Socket) SendTo(data []byte, flags uint32, remote netip.AddrPort, control []ControlMessage, irp *IRP) (st ntstatus.Status) {
	if t := s.client.tracer.Load(); t != nil {
		defer t.called(s, irp, &st, "WskSendTo", "%v, %d bytes, flags %#x, %d control messages", remote, len(data), flags, len(control))
	}
	return s.sendMessages(opSendTo, [][]byte{data}, flags, remote, control, irp)
}

// SendMessages is WskSendMessages: several datagrams to one address. The
// Information is the bytes of all.
func (s *Socket) SendMessages(messages [][]byte, flags uint32, remote netip.AddrPort, control []ControlMessage, irp *IRP) (st ntstatus.Status) {
	if t := s.client.tracer.Load(); t != nil {
		defer t.called(s, irp, &st, "WskSendMessages", "%v, %d datagrams, flags %#x, %d control messages", remote, len(messages), flags, len(control))
	}
	return s.sendMessages(opSendMessages, messages, flags, remote, control, irp)
}

func (s *Socket) sendMessages(op operation, messages [][]byte, flags uint32, remote netip.AddrPort, control []ControlMessage, irp *IRP) ntstatus.Status {
	c, st := s.enter(op, irp)
	if st != ntstatus.Success {
		return st
	}
	packets, st := s.bindings()
	if st == ntstatus.Success {
		remote, st = s.destination(flags, remote)
	}
	var records []byte
	if st == ntstatus.Success {
		records, st = s.controlRecords(control)
	}
	if st != ntstatus.Success {
		return c.done(st, 0)
	}
	for _, m := range messages {
		c.lend(m, false)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	return s.send.push(&request{c: c, interrupt: func() { cancel(); packets.SetWriteDeadline(past) },
		resume: func() { packets.SetWriteDeadline(noLimit) },
		run: func() (ntstatus.Status, int) {
			defer cancel()
			total := 0
			for _, m := range messages {
				n, err := s.sendDatagram(ctx, packets, m, remote, records)
				if err != nil {
					return ended(ctx, err), 0
				}
				total += n
			}
			return ntstatus.Success, total
		}})
}

func (s *Socket) destination(flags uint32, remote netip.AddrPort) (netip.AddrPort, ntstatus.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !remote.IsValid() {
		remote = s.dgram.sendTo
	}
	if !remote.IsValid() {
		remote = s.dgram.peer
	}
	limited := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	switch {
	case flags != 0, !s.speaks(remote.Addr()), remote.Port() == 0:
		return remote, ntstatus.InvalidParameter
	case remote.Addr() == limited && !s.opts.broadcast:
		return remote, ntstatus.AccessDenied
	}
	return remote, ntstatus.Success
}

// controlRecords are the sealed records among what is sent with a datagram.
func (s *Socket) controlRecords(control []ControlMessage) ([]byte, ntstatus.Status) {
	var records []byte
	for _, m := range control {
		if m.Level != s.ipLevel() || m.Type != IPWFPRedirectRecords {
			return nil, ntstatus.NotSupported
		}
		records = m.Data
	}
	if records == nil {
		return nil, ntstatus.Success
	}
	if may := s.client.provider.opts.MaySetRecords; may != nil && !may(s.owner) {
		return nil, ntstatus.AccessDenied
	}
	rs, err := s.enforcer().Open(records)
	if err != nil {
		return nil, ntstatus.AccessDenied // AMB-13
	}
	s.enforcer().Release(rs)
	return records, ntstatus.Success
}

func (s *Socket) ipLevel() uint32 {
	if s.family == AFInet6 {
		return uint32(IPProtoIPv6)
	}
	return uint32(IPProtoIP)
}

func (s *Socket) sendDatagram(ctx context.Context, packets *net.UDPConn, data []byte, remote netip.AddrPort, records []byte) (int, error) {
	if records != nil {
		if err := s.lendRecords(records); err != nil {
			return 0, err
		}
		defer s.takeRecordsBack()
	}
	to, _, _, err := s.ale.SendTo(ctx, remote)
	if err != nil {
		return 0, err
	}
	return packets.WriteToUDPAddrPort(data, to)
}

// lendRecords puts records on the socket for one datagram; the send worker is
// the only one that sends.
func (s *Socket) lendRecords(sealed []byte) error {
	rs, err := s.enforcer().Open(sealed)
	if err != nil {
		return err
	}
	s.ale.SetRecords(rs)
	return nil
}

// takeRecordsBack leaves the socket with what the ioctl set.
func (s *Socket) takeRecordsBack() {
	s.mu.Lock()
	set := s.set
	s.mu.Unlock()
	s.ale.SetRecords(nil)
	if set != nil {
		// It was opened before; if its hops are gone they stay gone.
		_ = s.lendRecords(set)
	}
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
	return &request{run: run, interrupt: func() { cancel(); c.SetReadDeadline(past) }, resume: func() { c.SetReadDeadline(noLimit) }}
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
	s.event(EventReceiveFrom, func() { st = table.ReceiveFromEvent(s.context, 0, d) })
	if st == ntstatus.Pending {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.dgram.retained, d)
	if st != ntstatus.Success {
		s.dgram.unread, s.in.paused = append(s.dgram.unread, d), asked == s.in.asked
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

// setSendToAddress answers SIO_WSK_SET_SENDTO_ADDRESS: where SendTo goes
// without an address.
func (s *Socket) setSendToAddress(_ uint32, in, _ []byte) (ntstatus.Status, int) {
	a, ok := ParseSockaddr(in)
	if !ok || !s.speaks(a.Addr()) {
		return ntstatus.InvalidParameter, 0
	}
	s.dgram.sendTo = a
	return ntstatus.Success, 0
}

// setRemoteAddress answers SIO_WSK_SET_REMOTE_ADDRESS: connect() of a datagram
// socket, which CONNECT_REDIRECT sees (ALE-LAY-05). Datagrams of others are
// dropped from then on.
func (s *Socket) setRemoteAddress(c call, in []byte) ntstatus.Status {
	a, ok := ParseSockaddr(in)
	s.mu.Lock()
	usable, local := s.state >= bound, s.local
	s.mu.Unlock()
	switch {
	case !ok || !s.speaks(a.Addr()):
		return c.done(ntstatus.InvalidParameter, 0)
	case !usable:
		return c.done(ntstatus.InvalidDeviceState, 0)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	return c.pend(cancel, func() (ntstatus.Status, int) {
		defer cancel()
		_, err := s.ale.Connect(ctx, a, func(context.Context, ale.Target) (netip.AddrPort, error) { return local, nil })
		if err != nil {
			return ended(ctx, err), 0
		}
		s.mu.Lock()
		s.dgram.peer, s.flow, s.sealed = a, s.ale.Flow(a), nil
		s.mu.Unlock()
		return ntstatus.Success, 0
	})
}
