package conformance

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/calloutd/calloutd/host/ale"
)

// send NAME [ADDRESS]
func (w *world) send(a *args) error {
	s, err := w.sock(a)
	if err != nil {
		return err
	}
	var to netip.AddrPort
	if len(a.rest) > 0 {
		if to, err = address(a); err != nil {
			return err
		}
	}
	target, f, created, err := s.s.SendTo(context.Background(), to)
	if err == nil {
		if from, err2 := w.net.source(s.s.LocalAddr(), target); err2 == nil {
			w.net.send(from, target)
		}
		s.flow = f
	}
	w.result(err, "sent to %s%s", target, newFlow(created))
	return nil
}

func newFlow(created bool) string {
	if created {
		return " in a new flow"
	}
	return ""
}

func (w *world) receive(a *args) error {
	s, err := w.sock(a)
	if err != nil {
		return err
	}
	d, err := w.net.receive(s.s.LocalAddr())
	if err != nil {
		return a.l.errorf("%w", err)
	}
	source, f, created, err := s.s.ReceiveFrom(context.Background(), d.from)
	if err == nil {
		s.flow = f
	}
	w.result(err, "received from %s%s", source, newFlow(created))
	return nil
}

// packet NAME: the next packet of a connection, in either direction.
func (w *world) packet(a *args) error {
	s, err := w.flow(a)
	if err != nil {
		return err
	}
	w.result(s.flow.Reauthorize(context.Background()), "passes")
	return nil
}

// icmpMessage reads "NAME ADDRESS type= [code=] [id=]".
func (w *world) icmpMessage(a *args) (s *sock, at netip.Addr, m ale.ICMPMessage, err error) {
	if s, err = w.sock(a); err != nil {
		return s, at, m, err
	}
	text, err := a.next("an address")
	if err != nil {
		return s, at, m, err
	}
	if at, err = netip.ParseAddr(text); err != nil {
		return s, at, m, a.l.errorf("%q is no address", text)
	}
	o, err := a.options("", "type code id")
	if err != nil {
		return s, at, m, err
	}
	m = ale.ICMPMessage{Type: uint8(number(o["type"], 0)), Code: uint8(number(o["code"], 0)), ID: uint16(number(o["id"], 0))}
	return s, at, m, nil
}

// icmp-send NAME ADDRESS type= [code=] [id=]
func (w *world) icmpSend(a *args) error {
	s, to, m, err := w.icmpMessage(a)
	if err != nil {
		return err
	}
	target, f, created, err := s.s.SendICMP(context.Background(), to, m)
	if err == nil {
		s.flow = f
	}
	w.result(err, "sent to %s%s", target, newFlow(created))
	return nil
}

// icmp-receive NAME ADDRESS type= [code=] [id=]: a message from an address.
func (w *world) icmpReceive(a *args) error {
	s, from, m, err := w.icmpMessage(a)
	if err != nil {
		return err
	}
	source, f, created, err := s.s.ReceiveICMP(context.Background(), from, m)
	if err == nil {
		s.flow = f
	}
	w.result(err, "received from %s%s", source, newFlow(created))
	return nil
}

// reinject LISTENER ADDRESS: somebody takes the connection that waits there off
// the network and puts it back as his own, from another address.
func (w *world) reinject(a *args) error {
	s, err := w.sock(a)
	if err != nil {
		return err
	}
	from, err := address(a)
	if err != nil {
		return err
	}
	waiting := w.net.listening[s.s.LocalAddr()]
	if len(waiting) == 0 {
		return a.l.errorf("%w", fmt.Errorf("nobody waits at %s", s.s.LocalAddr()))
	}
	waiting[0].from = from
	return nil
}
