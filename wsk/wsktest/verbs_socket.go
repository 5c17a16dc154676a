package wsktest

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

var categories = map[string]wsk.Category{"basic": wsk.BasicSocket, "listen": wsk.ListenSocket, "connection": wsk.ConnectionSocket,
	"datagram": wsk.DatagramSocket, "stream": wsk.StreamSocket}

// keep remembers a new socket.
func (w *world) keep(name string, s *wsk.Socket) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sockets[name] = s
	w.open = append(w.open, s)
}

func (w *world) socket(name string) *wsk.Socket {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sockets[name]
}

func family(s *statement, a netip.Addr) (wsk.AddressFamily, error) {
	switch v := s.keys["family"]; {
	case v == "v4", v == "" && a.Is4(), v == "" && !a.IsValid():
		return wsk.AFInet, nil
	case v == "v6", v == "":
		return wsk.AFInet6, nil
	case v == "unspec":
		return wsk.AFUnspec, nil
	default:
		return 0, fmt.Errorf("%q is none of v4, v6, unspec", v)
	}
}

func socketCall(w *world, s *statement) (*invocation, error) {
	cat, ok := categories[s.args[1]]
	if !ok {
		return nil, fmt.Errorf("%q is no category", s.args[1])
	}
	typ, proto := wsk.SockStream, wsk.IPProtoTCP
	if cat == wsk.DatagramSocket {
		typ, proto = wsk.SockDgram, wsk.IPProtoUDP
	}
	c, err1 := w.clientOf()
	fam, err2 := family(s, netip.Addr{})
	flags, err3 := w.numberOr(s, "flags", int(cat))
	t, err4 := w.numberOr(s, "type", int(typ))
	pr, err5 := w.numberOr(s, "protocol", int(proto))
	sd, err6 := w.numberOr(s, "sd", 0)
	owner, err7 := w.process(s)
	h, table := w.handler(s.args[0], cat, s.keys["events"])
	var context any
	if h != nil {
		context = h
	}
	if v := s.keys["context"]; v != "" {
		context = v
	}
	return &invocation{
		do: func(p *wsk.IRP) ntstatus.Status {
			return c.Socket(fam, wsk.SocketType(t), wsk.Protocol(pr), wsk.Category(flags), context, table, owner, wsk.SecurityDescriptor(sd), p)
		},
		then: func(p *pending) error { w.keep(s.args[0], p.irp.socket); return nil },
	}, errors.Join(err1, err2, err3, err4, err5, err6, err7)
}

func (w *world) process(s *statement) (*wsk.Process, error) {
	name := s.keys["owner"]
	if name == "" {
		return nil, nil
	}
	p := w.processes[name]
	if p == nil {
		return nil, fmt.Errorf("there is no process %q", name)
	}
	return p, nil
}

func socketConnectCall(w *world, s *statement) (*invocation, error) {
	c, err := w.clientOf()
	if err != nil {
		return nil, err
	}
	from, err1 := w.addr(s.args[1])
	to, err2 := w.addr(s.args[2])
	flags, err3 := w.flags(s)
	owner, err4 := w.process(s)
	typ := wsk.SockStream
	if s.keys["type"] == "dgram" {
		typ = wsk.SockDgram
	}
	return &invocation{
		do: func(p *wsk.IRP) ntstatus.Status {
			return c.SocketConnect(typ, wsk.IPProtoTCP, from, to, flags, nil, nil, owner, 0, p)
		},
		then: func(p *pending) error { w.keep(s.args[0], p.irp.socket); return nil },
	}, errors.Join(err1, err2, err3, err4)
}

func acceptCall(w *world, s *statement) (*invocation, error) {
	sock := w.socket(s.args[0])
	if sock == nil {
		return nil, fmt.Errorf("there is no socket %q", s.args[0])
	}
	flags, err := w.flags(s)
	if err != nil {
		return nil, err
	}
	h, table := w.handler(s.args[1], wsk.ConnectionSocket, s.keys["events"])
	var context any
	var dispatch *wsk.ClientConnectionDispatch
	if h != nil {
		context, dispatch = h, table.(*wsk.ClientConnectionDispatch)
	}
	var local, remote netip.AddrPort
	return &invocation{
		do: func(p *wsk.IRP) ntstatus.Status { return sock.Accept(flags, context, dispatch, &local, &remote, p) },
		then: func(p *pending) error {
			if p.irp.socket == nil {
				return errors.New("the IRP has no socket")
			}
			w.keep(s.args[1], p.irp.socket)
			return nil
		},
		results: func() map[string]any { return map[string]any{"local": local, "remote": remote} },
	}, nil
}
