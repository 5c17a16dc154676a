package wsk

import (
	"context"
	"net"
	"net/netip"

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
		c.ask(func() { records, st = s.controlRecords(control) })
	}
	if st != ntstatus.Success {
		return c.done(st, 0)
	}
	for _, m := range messages {
		c.lend(m, false)
	}
	c.lend(records, false)
	ctx, cancel := context.WithCancel(s.ctx)
	return s.send.push(&request{c: c, unused: cancel, interrupt: func() { cancel(); packets.SetWriteDeadline(past) },
		resume: func() { packets.SetWriteDeadline(noLimit) },
		run: func() (ntstatus.Status, int) {
			defer cancel()
			total := 0
			for _, m := range messages {
				n, err := s.sendDatagram(ctx, packets, m, remote, records)
				if err != nil {
					return s.ended(ctx, err), 0
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
	if len(control) == 0 {
		return nil, ntstatus.Success
	}
	var records []byte
	for _, m := range control {
		if m.Level != s.ipLevel() || m.Type != IPWFPRedirectRecords {
			return nil, ntstatus.NotSupported
		}
		records = m.Data
	}
	if len(records) == 0 {
		return nil, ntstatus.InvalidParameter // SC-40
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
