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
	for _, table := range []map[string]verb{settings, registering, calls, waits, peers, engineVerbs, userVerbs} {
		for name, v := range table {
			verbs[name] = v
		}
	}
}

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

// numberOr is the number of a key, or what it is without one.
func (w *world) numberOr(s *statement, key string, or int) (int, error) {
	v, ok := s.keys[key]
	if !ok {
		return or, nil
	}
	return w.number(v)
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
