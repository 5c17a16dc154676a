package ale

import (
	"context"
	"net/netip"
)

// Flow returns the flow with a peer, nil if there is none.
func (s *Socket) Flow(remote netip.AddrPort) *Flow {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flows.byRemote[peer{remote: remote}]
}

// find returns the live flow with a peer and makes it young again.
func (s *Socket) find(p peer) (*Flow, error) {
	s.mu.Lock()
	if err := s.check(); err != nil {
		s.mu.Unlock()
		return nil, err
	}
	f, old := s.flows.live(p, s.e.opts.Now(), s.e.opts.FlowIdle)
	s.mu.Unlock()
	for _, f := range old {
		f.Close()
	}
	return f, nil
}

// keepFlow makes a new flow one of the socket's and says so. If another datagram
// of the same peer was faster, its flow is the one.
func (s *Socket) keepFlow(p peer, f *Flow) (*Flow, bool, error) {
	s.mu.Lock()
	err := s.check()
	kept := s.flows.byRemote[p]
	if err == nil && kept == nil {
		f.of, f.peer = s, p
		s.flows.add(p, f, s.e.opts.Now())
		kept = f
	}
	s.mu.Unlock()
	if kept != f || err != nil {
		f.Close()
		return kept, false, err
	}
	f.OnAbort(nil)
	return f, true, f.goesOn(nil)
}

// leave ends the flow of a datagram socket, which stays: the peer's next datagram begins
// another flow. Only who takes it out of the table ends it. One that the policy refuses
// stays there, and refused.
func (f *Flow) leave() {
	if f.refused.Load() == nil {
		f.end()
	}
}

// end takes the flow out of its socket's table, and ends it unless somebody else has.
func (f *Flow) end() {
	s := f.of
	s.mu.Lock()
	mine := s.flows.byRemote[f.peer] == f
	if mine {
		s.flows.remove(f.peer, f)
	}
	s.mu.Unlock()
	if mine {
		f.Close()
	}
}

// goesOn says whether a datagram of the flow may pass that has been asked about: a callout
// may have aborted the flow, too.
func (f *Flow) goesOn(err error) error {
	if err == nil && f.fwps.Aborted() {
		return ErrAborted
	}
	return err
}

// authorizes notes that the socket owes an ENDPOINT_CLOSURE, whatever the answer.
func (s *Socket) authorizes() {
	s.mu.Lock()
	s.flows.any = true
	s.mu.Unlock()
}

// SendTo decides a datagram that is about to be sent and says where it goes. The
// first one of a flow is taken through CONNECT_REDIRECT, AUTH_CONNECT and
// FLOW_ESTABLISHED (ALE-LAY-04), and created is true; the records of a redirected
// flow are kept before SendTo returns. A zero remote is the connected one,
// and ErrNoDestination on a socket that is not connected.
func (s *Socket) SendTo(ctx context.Context, remote netip.AddrPort) (to netip.AddrPort, f *Flow, created bool, err error) {
	if !remote.IsValid() {
		s.mu.Lock()
		remote = s.connected
		s.mu.Unlock()
	}
	return s.send(ctx, remote, nil)
}

func (s *Socket) send(ctx context.Context, remote netip.AddrPort, m *ICMPMessage) (to netip.AddrPort, f *Flow, created bool, err error) {
	if !remote.IsValid() {
		return to, nil, false, ErrNoDestination
	}
	remote = s.destination(remote)
	p := newPeer(remote, m)
	if f, err = s.find(p); err != nil {
		return to, nil, false, err
	}
	if f != nil {
		stays, err := s.stays(ctx, f)
		if err != nil {
			return to, nil, false, err
		}
		if !stays {
			f.end()
			f = nil
		}
	}
	if f != nil {
		if f.in.Inbound {
			return remote, f, false, f.goesOn(f.Reauthorize(ctx))
		}
		return f.Remote, f, false, f.goesOn(f.Reauthorize(ctx))
	}
	op, err := s.begin(ctx)
	if err != nil {
		return to, nil, false, err
	}
	defer s.end(op, &err)
	if f, err = s.firstTo(op.ctx, remote, m); err == nil {
		f, created, err = s.keepFlow(p, f)
	}
	if err != nil {
		return to, nil, false, err
	}
	return f.Remote, f, created, nil
}

// firstTo creates an outgoing flow.
func (s *Socket) firstTo(ctx context.Context, remote netip.AddrPort, m *ICMPMessage) (*Flow, error) {
	if err := s.ensureBound(ctx, remote); err != nil {
		return nil, err
	}
	in := s.outgoing(remote)
	begun, goes := false, false
	defer s.e.releaseUnless(&begun, in.Records)
	if m != nil {
		in.Local = netip.AddrPortFrom(in.Local.Addr(), uint16(m.Type))
	}
	p, err := s.e.redirectLayer(ctx, in)
	if err != nil {
		s.abandon(ctx, remote)
		return nil, err
	}
	s.authorizes()
	f := s.flow(in, &p)
	begun = true
	defer f.closeUnless(&goes)
	if err := s.authConnect(ctx, f, in, &p); err != nil {
		s.e.drop(&p)
		return nil, err
	}
	records, err := s.e.keep(&in, &p)
	if err != nil {
		return nil, err
	}
	if records != nil {
		f.hold(&p)
		s.e.meet.finish(key{in.Protocol, source(in.Local, p.remote), p.remote}, s.e.meet.begin(p.remote), records)
	}
	if p.observer != nil {
		p.sent(in)
	}
	f.Established()
	goes = true
	return f, nil
}

// SendsFrom says where the datagrams of the flow come from, if that is not the socket's
// address, which may be one of another host: a proxy finds the records by it. It must be
// called before the first is sent.
func (f *Flow) SendsFrom(local netip.AddrPort) {
	k := key{f.in.Protocol, source(f.Local, f.Remote), f.Remote}
	if f.Redirected && k.client != local {
		f.e.meet.move(k, key{k.protocol, local, k.target})
	}
}

// source is the address a local peer sees: a socket bound to the wildcard sends
// from the address it sends to.
func source(local, to netip.AddrPort) netip.AddrPort {
	if local.Addr().IsUnspecified() || !local.IsValid() {
		return netip.AddrPortFrom(to.Addr(), local.Port())
	}
	return local
}

// ReceiveFrom decides a datagram that arrived. The first one from a new peer is
// taken through AUTH_RECV_ACCEPT and FLOW_ESTABLISHED; the flow has the redirect
// records it came with, and created is true. source is whom the application
// believes to hear: the original destination for the answers of a proxy (CR-16).
func (s *Socket) ReceiveFrom(ctx context.Context, from netip.AddrPort) (source netip.AddrPort, f *Flow, created bool, err error) {
	return s.receive(ctx, from, nil)
}

func (s *Socket) receive(ctx context.Context, from netip.AddrPort, m *ICMPMessage) (source netip.AddrPort, f *Flow, created bool, err error) {
	p := newPeer(from, m)
	if f := s.answered(p); f != nil {
		return f.Original, f, false, f.goesOn(f.Reauthorize(ctx))
	}
	if f, err = s.find(p); err != nil {
		return from, nil, false, err
	}
	if f != nil {
		return from, f, false, f.goesOn(f.Reauthorize(ctx))
	}
	op, err := s.begin(ctx)
	if err != nil {
		return from, nil, false, err
	}
	defer s.end(op, &err)
	if f, err = s.firstFrom(op.ctx, from, m); err == nil {
		f, created, err = s.keepFlow(p, f)
	}
	if err != nil {
		return from, nil, false, err
	}
	return from, f, created, nil
}

// answered finds the live redirected flow whose proxy answers, and makes it young
// again.
func (s *Socket) answered(p peer) *Flow {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, now := s.flows.byTarget[peer{plain(p.remote), p.icmp}], s.e.opts.Now()
	if f == nil || s.closed || now.Sub(f.last) >= s.e.opts.FlowIdle {
		return nil
	}
	f.last = now
	return f
}

// firstFrom creates an incoming flow.
func (s *Socket) firstFrom(ctx context.Context, from netip.AddrPort, m *ICMPMessage) (*Flow, error) {
	in := s.incoming()
	in.Remote, in.Records = from, nil
	local := in.Local
	if local.Addr().IsUnspecified() {
		local = netip.AddrPortFrom(from.Addr(), local.Port())
	}
	k := key{in.Protocol, from, local}
	if m != nil {
		k.client = netip.AddrPortFrom(from.Addr(), uint16(m.Type))
		k.target = netip.AddrPortFrom(local.Addr(), uint16(m.Code))
		in.Local = netip.AddrPortFrom(in.Local.Addr(), uint16(m.Type))
	}
	s.authorizes()
	return s.e.inbound(ctx, in, s.e.meet.take(k, ctx.Done()))
}
