package conformance

import (
	"cmp"
	"context"
	"net/netip"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwps"
)

// A sock is a socket of the script.
type sock struct {
	name string
	s    *ale.Socket
	in   fwps.Incoming
	flow *ale.Flow
}

func (w *world) sock(a *args) (*sock, error) {
	name, err := a.next("a socket")
	if err != nil {
		return nil, err
	}
	s := w.sockets[name]
	if s == nil {
		return nil, a.l.errorf("there is no socket %q", name)
	}
	return s, nil
}

// flow is a socket with a flow.
func (w *world) flow(a *args) (*sock, error) {
	s, err := w.sock(a)
	if err == nil && s.flow == nil {
		err = a.l.errorf("socket %q has no flow", s.name)
	}
	return s, err
}

var protocols = map[string]uint8{"tcp": fwps.ProtocolTCP, "udp": fwps.ProtocolUDP, "icmp": fwps.ProtocolICMP, "icmp6": fwps.ProtocolICMPv6, "sctp": 132}

// socket NAME PROTOCOL [v6] [raw] [header-include] [system-binds] [pid=] [uid=] [app=]
//
// A socket that the system binds has no address until it is used.
func (w *world) socket(a *args) error {
	name, err := a.next("a name")
	if err != nil {
		return err
	}
	proto, err := a.next("a protocol")
	if err != nil {
		return err
	}
	if protocols[proto] == 0 {
		return a.l.errorf("protocol %q is unknown", proto)
	}
	o, err := a.options("v6 raw header-include system-binds", "pid uid app")
	if err != nil {
		return err
	}
	in := fwps.Incoming{Protocol: protocols[proto], AppID: "/bin/" + name, ProcessID: number(o["pid"], 100), HeaderInclude: o["header-include"] != ""}
	in.Local = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	if o["v6"] != "" {
		in.Local = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	}
	if o["raw"] != "" {
		in.Flags = fwp.FlagIsRawEndpoint
	}
	if o["app"] != "" {
		in.AppID = o["app"]
	}
	if o["uid"] != "" {
		in.UserID, in.UserKnown = number(o["uid"], 0), true
	}
	s := &sock{name: name, s: w.ale.NewSocket(in), in: in}
	if o["system-binds"] == "" {
		s.s.OnImplicitBind(w.bindTo)
	}
	w.sockets[name] = s
	return nil
}

func (w *world) bind(a *args) error {
	s, err := w.sock(a)
	if err != nil {
		return err
	}
	at, err := address(a)
	if err != nil {
		return err
	}
	local, err := s.s.Bind(context.Background(), at, w.bindTo)
	w.result(err, "bound to %s", local)
	return nil
}

func (w *world) bindTo(_ context.Context, want netip.AddrPort) (netip.AddrPort, error) {
	w.act("bind to %s", want)
	return w.net.bind(want), nil
}

// listen NAME ADDRESS binds and listens.
func (w *world) listen(a *args) error {
	name := ""
	if len(a.rest) > 0 {
		name = a.rest[0]
	}
	if err := w.bind(a); err != nil {
		return err
	}
	s := w.sockets[name]
	if !s.s.LocalAddr().IsValid() {
		return nil
	}
	err := s.s.Listen(context.Background(), func() error {
		w.act("listen at %s", s.s.LocalAddr())
		w.net.listening[s.s.LocalAddr()] = []arrival{}
		return nil
	})
	w.result(err, "listening")
	return nil
}

// connect NAME ADDRESS [in-progress]
func (w *world) connect(a *args) error {
	s, err := w.sock(a)
	if err != nil {
		return err
	}
	to, err := address(a)
	if err != nil {
		return err
	}
	o, err := a.options("in-progress", "")
	if err != nil {
		return err
	}
	connect := w.connectTo(s.s)
	switch {
	case s.in.Protocol != fwps.ProtocolTCP:
		connect = func(_ context.Context, t ale.Target) (netip.AddrPort, error) {
			w.act("connect to %s, %d hops kept", t.Remote, w.ale.LiveHops())
			return w.net.source(s.s.LocalAddr(), t.Remote)
		}
	case o["in-progress"] != "":
		finish := connect
		connect = func(ctx context.Context, t ale.Target) (netip.AddrPort, error) {
			local, err := finish(ctx, t)
			return local, cmp.Or(err, ale.ErrInProgress)
		}
	}
	f, err := s.s.Connect(context.Background(), to, connect)
	switch {
	case f != nil:
		s.flow = f
		w.printf("= connected %s -> %s", f.Local, f.Remote)
	default:
		w.result(err, "connected")
	}
	return nil
}

// connectTo lets a connection go on the network.
func (w *world) connectTo(s *ale.Socket) ale.ConnectFunc {
	return func(_ context.Context, t ale.Target) (netip.AddrPort, error) {
		w.act("connect to %s, %d hops kept", t.Remote, w.ale.LiveHops())
		return w.net.connect(s.LocalAddr(), t)
	}
}

// accept LISTENER NAME
func (w *world) accept(a *args) error {
	s, err := w.sock(a)
	if err != nil {
		return err
	}
	name, err := a.next("a name")
	if err != nil {
		return err
	}
	at, err := w.net.accept(s.s.LocalAddr())
	if err != nil {
		return a.l.errorf("%w", err)
	}
	f, err := s.s.Accept(context.Background(), at.to, at.from)
	if err == nil {
		w.sockets[name] = &sock{name: name, s: s.s, in: s.in, flow: f}
	}
	w.result(err, "accepted %s", at.from)
	return nil
}

// close NAME: its connection, and the socket unless it is the listener's. What a
// callout holds of it ends.
func (w *world) close(a *args) error {
	s, err := w.sock(a)
	if err != nil {
		return err
	}
	delete(w.sockets, s.name)
	shut := func() {
		if s.flow != nil {
			s.flow.Close()
		}
		if s.flow == nil || !s.flow.Accepted() || s.in.Protocol != fwps.ProtocolTCP {
			s.s.Close()
		}
	}
	if j := w.jobs[s.name]; j != nil && !j.done && j != w.running {
		return w.resume(a.l, j, shut)
	}
	shut()
	return nil
}

func (w *world) detach(a *args) error {
	s, err := w.sock(a)
	if err == nil && s.flow != nil {
		s.flow.Detach()
	}
	return err
}
