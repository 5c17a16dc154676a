package wsktest

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

var verbs map[string]verb

func init() {
	verbs = map[string]verb{}
	for _, table := range []map[string]verb{settings, calls, waits, peers, engineVerbs, userVerbs} {
		for name, v := range table {
			verbs[name] = v
		}
	}
}

var categories = map[string]wsk.Category{"basic": wsk.BasicSocket, "listen": wsk.ListenSocket, "connection": wsk.ConnectionSocket,

	"datagram": wsk.DatagramSocket, "stream": wsk.StreamSocket}

// calls are the words that take an IRP.
var calls = map[string]verb{
	"socket":         {args: 2, keys: "family type protocol flags owner events sd context", call: socketCall},
	"socket-connect": {args: 3, keys: "flags type owner", call: socketConnectCall},
	"bind": {args: 2, keys: "flags", call: onSocket(func(w *world, s *statement, sock *wsk.Socket, inv *invocation) error {
		a, err := w.addr(s.args[1])
		flags, ferr := w.flags(s)
		inv.do = func(p *wsk.IRP) ntstatus.Status { return sock.Bind(a, flags, p) }
		return errors.Join(err, ferr)
	})},
	"listen": {args: 1, call: onSocket(func(_ *world, _ *statement, sock *wsk.Socket, inv *invocation) error {
		inv.do = func(p *wsk.IRP) ntstatus.Status { return sock.Listen(p) }
		return nil
	})},
	"accept": {args: 2, keys: "flags events", wants: "local remote", call: acceptCall},
	"connect": {args: 2, keys: "flags data", call: onSocket(func(w *world, s *statement, sock *wsk.Socket, inv *invocation) error {
		a, err := w.addr(s.args[1])
		flags, ferr := w.flags(s)
		inv.do = func(p *wsk.IRP) ntstatus.Status { return sock.Connect(a, flags, p) }
		if d, ok := s.keys["data"]; ok {
			b, derr := w.blob(d)
			inv.do = func(p *wsk.IRP) ntstatus.Status { return sock.ConnectEx(a, b, flags, p) }
			err = errors.Join(err, derr)
		}
		return errors.Join(err, ferr)
	})},
	"local":  {args: 1, wants: "is", call: addressCall((*wsk.Socket).GetLocalAddress)},
	"remote": {args: 1, wants: "is", call: addressCall((*wsk.Socket).GetRemoteAddress)},
	"send": {args: 2, keys: "flags control", call: onSocket(func(w *world, s *statement, sock *wsk.Socket, inv *invocation) error {
		b, err := w.blob(s.args[1])
		flags, ferr := w.flags(s)
		inv.do = func(p *wsk.IRP) ntstatus.Status { return sock.Send(b, flags, p) }
		if s.keys["control"] != "" {
			inv.do = func(p *wsk.IRP) ntstatus.Status { return sock.SendEx(b, flags, []wsk.ControlMessage{{}}, p) }
		}
		return errors.Join(err, ferr)
	})},
	"receive": {args: 2, keys: "flags ex", wants: "data", call: receiveCall},
	"disconnect": {args: 1, keys: "flags data", call: onSocket(func(w *world, s *statement, sock *wsk.Socket, inv *invocation) error {
		var b []byte
		var err error
		if d, ok := s.keys["data"]; ok {
			b, err = w.blob(d)
		}
		flags, ferr := w.flags(s)
		inv.do = func(p *wsk.IRP) ntstatus.Status { return sock.Disconnect(b, flags, p) }
		return errors.Join(err, ferr)
	})},
	"close": {args: 1, call: onSocket(func(w *world, s *statement, sock *wsk.Socket, inv *invocation) error {
		inv.do = func(p *wsk.IRP) ntstatus.Status { return sock.CloseSocket(p) }
		return nil
	})},
	"ioctl":          {args: 2, keys: "in out returned level", wants: "data value", call: controlCall(wsk.Ioctl)},
	"set":            {args: 3, keys: "level", call: controlCall(wsk.SetOption)},
	"get":            {args: 2, keys: "out returned", wants: "data value", call: controlCall(wsk.GetOption)},
	"events":         {args: 3, call: eventsCall},
	"inspect":        {args: 3, call: inspectCall},
	"control-client": {args: 1, keys: "in out returned", wants: "data value", call: controlClientCall},
	"address-info":   {args: 2, keys: "family flags type", wants: "is count", call: addressInfoCall},
	"name-info":      {args: 1, keys: "flags", wants: "node service", call: nameInfoCall},
	"sendto":         {args: 3, keys: "flags control type", call: sendToCall},
	"send-messages":  {args: 2, vari: true, call: sendMessagesCall},
	"receivefrom":    {args: 2, keys: "flags", wants: "data from control levels flags save-records save-context", call: receiveFromCall},
}

// onSocket makes a call on the socket that the first word names.
func onSocket(f func(w *world, s *statement, sock *wsk.Socket, inv *invocation) error) func(*world, *statement) (*invocation, error) {
	return func(w *world, s *statement) (*invocation, error) {
		sock := w.socket(s.args[0])
		if sock == nil {
			return nil, fmt.Errorf("there is no socket %q", s.args[0])
		}
		inv := new(invocation)
		return inv, f(w, s, sock, inv)
	}
}

func (w *world) flags(s *statement) (uint32, error) {
	v, ok := s.keys["flags"]
	if !ok {
		return 0, nil
	}
	var flags uint32
	for _, f := range strings.Split(v, ",") {
		named := map[string]uint32{"nodelay": wsk.FlagNoDelay, "waitall": wsk.FlagWaitAll, "drain": wsk.FlagDrain, "abortive": wsk.FlagAbortive}
		n, ok := named[f]
		if !ok {
			m, err := w.number(f)
			if err != nil {
				return 0, err
			}
			n = uint32(m)
		}
		flags |= n
	}
	return flags, nil
}

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

// numberOr is the number of a key, or what it is without one.
func (w *world) numberOr(s *statement, key string, or int) (int, error) {
	v, ok := s.keys[key]
	if !ok {
		return or, nil
	}
	return w.number(v)
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

func addressCall(get func(*wsk.Socket, *netip.AddrPort, *wsk.IRP) ntstatus.Status) func(*world, *statement) (*invocation, error) {
	return onSocket(func(_ *world, _ *statement, sock *wsk.Socket, inv *invocation) error {
		var a netip.AddrPort
		inv.do = func(p *wsk.IRP) ntstatus.Status { return get(sock, &a, p) }
		inv.results = func() map[string]any { return map[string]any{"is": a} }
		return nil
	})
}

// buffer is an output buffer with something in it, so that what is written shows.
func (w *world) buffer(size string) ([]byte, error) {
	if size == "" || size == "null" {
		return nil, nil
	}
	n, err := w.number(size)
	if err != nil {
		return nil, err
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = 0xAA
	}
	return b, nil
}

func receiveCall(w *world, s *statement) (*invocation, error) {
	buf, err := w.buffer(s.args[1])
	if err != nil {
		return nil, err
	}
	return onSocket(func(w *world, s *statement, sock *wsk.Socket, inv *invocation) error {
		flags, err := w.flags(s)
		inv.out = buf
		inv.do = func(p *wsk.IRP) ntstatus.Status { return sock.Receive(buf, flags, p) }
		if s.keys["ex"] != "" {
			var control []wsk.ControlMessage
			var controlFlags uint32
			inv.do = func(p *wsk.IRP) ntstatus.Status { return sock.ReceiveEx(buf, flags, &control, &controlFlags, p) }
		}
		n := 0
		inv.then = func(p *pending) error { n = p.status().Information; return nil }
		inv.results = func() map[string]any { return map[string]any{"data": buf[:n]} }
		return err
	})(w, s)
}
