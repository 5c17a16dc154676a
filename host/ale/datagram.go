package ale

import (
	"context"
	"net/netip"
	"time"
)

// A flowTable has the flows of a datagram socket, under the socket's lock.
type flowTable struct {
	byRemote map[netip.AddrPort]*Flow // by what the application calls the peer
	byTarget map[netip.AddrPort]*Flow // redirected ones, by where the datagrams go
	any      bool                     // there was a flow, which owes an ENDPOINT_CLOSURE
}

func (t *flowTable) all() []*Flow {
	out := make([]*Flow, 0, len(t.byRemote))
	for _, f := range t.byRemote {
		out = append(out, f)
	}
	return out
}

func (t *flowTable) add(peer netip.AddrPort, f *Flow, now time.Time) {
	if t.byRemote == nil {
		t.byRemote, t.byTarget = map[netip.AddrPort]*Flow{}, map[netip.AddrPort]*Flow{}
	}
	f.last, t.any = now, true
	t.byRemote[peer] = f
	if f.Redirected && !f.in.Inbound {
		t.byTarget[plain(f.Remote)] = f
	}
}

// live finds a flow that has not idled out (ALE-LAY-11). One that has is taken
// out and returned as old.
func (t *flowTable) live(peer netip.AddrPort, now time.Time, idle time.Duration) (f, old *Flow) {
	f = t.byRemote[peer]
	if f == nil || now.Sub(f.last) < idle {
		return f, nil
	}
	delete(t.byRemote, peer)
	if t.byTarget[plain(f.Remote)] == f {
		delete(t.byTarget, plain(f.Remote))
	}
	return nil, f
}

// Flow returns the flow with a peer, nil if there is none.
func (s *Socket) Flow(peer netip.AddrPort) *Flow {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flows.byRemote[peer]
}

// find returns the live flow with a peer and makes it young again.
func (s *Socket) find(peer netip.AddrPort) (*Flow, error) {
	s.mu.Lock()
	if err := s.check(); err != nil {
		s.mu.Unlock()
		return nil, err
	}
	now := s.e.opts.Now()
	f, old := s.flows.live(peer, now, s.e.opts.FlowIdle)
	if f != nil {
		f.last = now
	}
	s.mu.Unlock()
	if old != nil {
		old.Close()
	}
	return f, nil
}

// SendTo decides a datagram that is about to be sent and says where it goes. The
// first one of a flow is taken through CONNECT_REDIRECT, AUTH_CONNECT and
// FLOW_ESTABLISHED (ALE-LAY-04), and created is true; the records of a redirected
// flow are kept before SendTo returns. A zero remote is the connected one.
func (s *Socket) SendTo(ctx context.Context, remote netip.AddrPort) (to netip.AddrPort, f *Flow, created bool, err error) {
	if !remote.IsValid() {
		s.mu.Lock()
		remote = s.connected
		s.mu.Unlock()
	}
	if f, err = s.find(remote); err != nil {
		return to, nil, false, err
	}
	if f != nil {
		if f.in.Inbound {
			return remote, f, false, f.Reauthorize(ctx)
		}
		return f.Remote, f, false, f.Reauthorize(ctx)
	}
	if f, err = s.firstTo(ctx, remote); err != nil {
		return to, nil, false, err
	}
	return f.Remote, f, true, nil
}

// firstTo creates an outgoing flow.
func (s *Socket) firstTo(ctx context.Context, remote netip.AddrPort) (*Flow, error) {
	if err := s.ensureBound(ctx, remote); err != nil {
		return nil, err
	}
	in := s.outgoing(remote)
	p, err := s.e.redirectLayer(ctx, in)
	if err != nil {
		return nil, err
	}
	f := s.e.flow(in, &p)
	if err := f.authConnect(ctx, in, &p); err != nil {
		s.e.drop(&p)
		f.Close()
		return nil, err
	}
	records, err := s.e.keep(&in, &p)
	if err != nil {
		f.Close()
		return nil, err
	}
	if records != nil {
		s.e.meet.begin(p.remote)
		s.e.meet.finish(key{in.Protocol, source(in.Local, p.remote), p.remote}, records, s.e.opts.Now())
	}
	f.established()
	s.mu.Lock()
	s.flows.add(remote, f, s.e.opts.Now())
	s.mu.Unlock()
	return f, nil
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
	s.mu.Lock()
	if f := s.flows.byTarget[plain(from)]; f != nil && s.e.opts.Now().Sub(f.last) < s.e.opts.FlowIdle {
		f.last = s.e.opts.Now()
		s.mu.Unlock()
		return f.Original, f, false, f.Reauthorize(ctx)
	}
	s.mu.Unlock()
	if f, err = s.find(from); err != nil {
		return from, nil, false, err
	}
	if f != nil {
		return from, f, false, f.Reauthorize(ctx)
	}
	in := s.incoming()
	in.Remote, in.Records = from, nil
	local := in.Local
	if local.Addr().IsUnspecified() {
		local = netip.AddrPortFrom(from.Addr(), local.Port())
	}
	rs := s.e.meet.take(key{in.Protocol, from, local}, ctx.Done())
	if f, err = s.e.inbound(ctx, in, rs); err != nil {
		return from, nil, false, err
	}
	s.mu.Lock()
	s.flows.add(from, f, s.e.opts.Now())
	s.mu.Unlock()
	return from, f, true, nil
}
