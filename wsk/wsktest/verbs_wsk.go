package wsktest

import (
	"encoding/binary"
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

var codes = map[string]uint32{
	"records": wsk.SIOQueryWFPConnectionRedirectRecords, "context": wsk.SIOQueryWFPConnectionRedirectContext,
	"set-records": wsk.SIOSetWFPConnectionRedirectRecords, "endpoint-handle": wsk.SIOQueryWFPALEEndpointHandle,
	"address-list": wsk.SIOAddressListQuery, "address-list-change": wsk.SIOAddressListChange, "address-list-sort": wsk.SIOAddressListSort,
	"loopback-fast-path": wsk.SIOLoopbackFastPath, "keep-alive-vals": wsk.SIOKeepAliveVals,
	"ideal-send-backlog": wsk.SIOWSKQueryIdealSendBacklog, "receive-backlog": wsk.SIOWSKQueryReceiveBacklog, "inspect-id": wsk.SIOWSKQueryInspectID,
	"register-extension": wsk.SIOWSKRegisterExtension, "remote-address": wsk.SIOWSKSetRemoteAddress, "sendto-address": wsk.SIOWSKSetSendToAddress,
	"silent-mode": wsk.SIOWSKSetTCPSilentMode,
}

var socketOptions = map[string][2]uint32{
	"reuse-addr": {wsk.SolSocket, wsk.SOReuseAddr}, "exclusive": {wsk.SolSocket, wsk.SOExclusiveAddrUse}, "keep-alive": {wsk.SolSocket, wsk.SOKeepAlive},
	"broadcast": {wsk.SolSocket, wsk.SOBroadcast}, "rcvbuf": {wsk.SolSocket, wsk.SORcvBuf}, "sndbuf": {wsk.SolSocket, wsk.SOSndBuf}, "type": {wsk.SolSocket, wsk.SOType},
	"conditional-accept": {wsk.SolSocket, wsk.SOConditionalAccept}, "original-dst": {wsk.SolSocket, wsk.SOOriginalDst}, "security": {wsk.SolSocket, wsk.SOWSKSecurity},
	"v6only": {uint32(wsk.IPProtoIPv6), wsk.IPv6V6Only}, "no-delay": {uint32(wsk.IPProtoTCP), wsk.TCPNoDelay},
	"want-records": {uint32(wsk.IPProtoIP), wsk.IPWFPRedirectRecords}, "want-context": {uint32(wsk.IPProtoIP), wsk.IPWFPRedirectContext},
	"want-records6": {uint32(wsk.IPProtoIPv6), wsk.IPWFPRedirectRecords}, "want-context6": {uint32(wsk.IPProtoIPv6), wsk.IPWFPRedirectContext},
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
	"receivefrom":    {args: 2, keys: "flags", wants: "data from control flags save-records save-context", call: receiveFromCall},
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
	c, err := w.clientOf()
	if err != nil {
		return nil, err
	}
	cat, ok := categories[s.args[1]]
	if !ok {
		return nil, fmt.Errorf("%q is no category", s.args[1])
	}
	fam, err := family(s, netip.Addr{})
	if err != nil {
		return nil, err
	}
	typ, proto := wsk.SockStream, wsk.IPProtoTCP
	if cat == wsk.DatagramSocket {
		typ, proto = wsk.SockDgram, wsk.IPProtoUDP
	}
	flags := int(cat)
	for key, into := range map[string]*int{"flags": &flags} {
		if v, ok := s.keys[key]; ok {
			if *into, err = w.number(v); err != nil {
				return nil, err
			}
		}
	}
	if v, ok := s.keys["type"]; ok {
		n, err := w.number(v)
		if err != nil {
			return nil, err
		}
		typ = wsk.SocketType(n)
	}
	if v, ok := s.keys["protocol"]; ok {
		n, err := w.number(v)
		if err != nil {
			return nil, err
		}
		proto = wsk.Protocol(n)
	}
	owner, err := w.process(s)
	if err != nil {
		return nil, err
	}
	h, table, err := w.handler(s.args[0], cat, s.keys["events"])
	if err != nil {
		return nil, err
	}
	var context any
	if h != nil {
		context = h
	}
	if v := s.keys["context"]; v != "" {
		context = v
	}
	var sd wsk.SecurityDescriptor
	if v := s.keys["sd"]; v != "" {
		n, err := w.number(v)
		if err != nil {
			return nil, err
		}
		sd = wsk.SecurityDescriptor(n)
	}
	return &invocation{
		do: func(p *wsk.IRP) ntstatus.Status {
			return c.Socket(fam, typ, proto, wsk.Category(flags), context, table, owner, sd, p)
		},
		then: func(p *pending) error { w.keep(s.args[0], p.irp.socket); return nil },
	}, nil
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
	h, table, err := w.handler(s.args[1], wsk.ConnectionSocket, s.keys["events"])
	if err != nil {
		return nil, err
	}
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

func controlCall(typ wsk.ControlSocketType) func(*world, *statement) (*invocation, error) {
	return onSocket(func(w *world, s *statement, sock *wsk.Socket, inv *invocation) error {
		code, level, err := w.code(typ, s.args[1])
		if err != nil {
			return err
		}
		if l, ok := s.keys["level"]; ok {
			n, err := w.number(l)
			if err != nil {
				return err
			}
			level = uint32(n)
		}
		var in []byte
		if v, ok := s.keys["in"]; ok {
			if in, err = w.blob(v); err != nil {
				return err
			}
		}
		if typ == wsk.SetOption {
			if in, err = w.optionValue(s.args[2]); err != nil {
				return err
			}
		}
		size := s.keys["out"]
		if typ == wsk.GetOption && size == "" {
			size = "128"
		}
		if inv.out, err = w.buffer(size); err != nil {
			return err
		}
		if s.keys["returned"] != "no" {
			inv.returned = new(int)
		}
		inv.do = func(p *wsk.IRP) ntstatus.Status {
			return sock.ControlSocket(typ, code, level, in, inv.out, inv.returned, p)
		}
		inv.then, inv.results = outputOf(inv)
		return nil
	})
}

// outputOf are the results of a call that fills a buffer: its bytes, and their
// number if they are a ULONG or a SIZE_T.
func outputOf(inv *invocation) (func(*pending) error, func() map[string]any) {
	n := 0
	return func(p *pending) error { n = p.status().Information; return nil }, func() map[string]any {
		r := map[string]any{"data": inv.out[:n]}
		switch n {
		case 4:
			r["value"] = int(binary.LittleEndian.Uint32(inv.out))
		case 8:
			r["value"] = int(binary.LittleEndian.Uint64(inv.out))
		}
		return r
	}
}

func (w *world) code(typ wsk.ControlSocketType, s string) (code, level uint32, err error) {
	if typ == wsk.Ioctl {
		if c, ok := codes[s]; ok {
			return c, 0, nil
		}
	} else if o, ok := socketOptions[s]; ok {
		return o[1], o[0], nil
	}
	n, err := w.number(s)
	return uint32(n), wsk.SolSocket, err
}

// optionValue is a number as a ULONG, or bytes.
func (w *world) optionValue(s string) ([]byte, error) {
	if n, err := w.number(s); err == nil {
		return []byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}, nil
	}
	return w.blob(s)
}

func controlClientCall(w *world, s *statement) (*invocation, error) {
	c, err := w.clientOf()
	if err != nil {
		return nil, err
	}
	named := map[string]uint32{"transport-list-query": wsk.TransportListQuery, "transport-list-change": wsk.TransportListChange, "cache-sd": wsk.CacheSD,
		"release-sd": wsk.ReleaseSD, "tdi-mapping": wsk.TDIDeviceNameMapping, "static-events": wsk.SetStaticEventCallbacks, "tdi-behavior": wsk.TDIBehavior}
	code, ok := named[s.args[0]]
	if !ok {
		n, err := w.number(s.args[0])
		if err != nil {
			return nil, err
		}
		code = uint32(n)
	}
	inv := new(invocation)
	var in []byte
	if v, ok := s.keys["in"]; ok {
		if in, err = w.blob(v); err != nil {
			return nil, err
		}
		if m, ok := eventNames[v]; ok {
			in = wsk.EventCallbackControl{NpiID: wsk.NPIWSKInterfaceID, EventMask: m}.Append(nil)
		}
	}
	if inv.out, err = w.buffer(s.keys["out"]); err != nil {
		return nil, err
	}
	if s.keys["returned"] != "no" {
		inv.returned = new(int)
	}
	inv.do = func(p *wsk.IRP) ntstatus.Status { return c.ControlClient(code, in, inv.out, inv.returned, p) }
	inv.then, inv.results = outputOf(inv)
	return inv, nil
}

func addressInfoCall(w *world, s *statement) (*invocation, error) {
	c, err := w.clientOf()
	if err != nil {
		return nil, err
	}
	hints := &wsk.AddrInfo{}
	if s.keys["family"] != "" {
		if hints.Family, err = family(s, netip.Addr{}); err != nil {
			return nil, err
		}
	}
	if s.keys["type"] == "stream" {
		hints.SocketType = wsk.SockStream
	}
	if hints.Flags, err = w.flags(s); err != nil {
		return nil, err
	}
	var list *wsk.AddrInfo
	return &invocation{
		do: func(p *wsk.IRP) ntstatus.Status { return c.GetAddressInfo(s.args[0], s.args[1], hints, &list, p) },
		results: func() map[string]any {
			n := 0
			for a := list; a != nil; a = a.Next {
				n++
			}
			r := map[string]any{"count": n}
			if list != nil {
				r["is"] = list.Addr
				c.FreeAddressInfo(list)
			}
			return r
		},
	}, nil
}

func nameInfoCall(w *world, s *statement) (*invocation, error) {
	c, err := w.clientOf()
	if err != nil {
		return nil, err
	}
	a, err := w.addr(s.args[0])
	flags, ferr := w.flags(s)
	var node, service string
	return &invocation{
		do:      func(p *wsk.IRP) ntstatus.Status { return c.GetNameInfo(a, &node, &service, flags, p) },
		results: func() map[string]any { return map[string]any{"node": node, "service": service} },
	}, errors.Join(err, ferr)
}

func sendToCall(w *world, s *statement) (*invocation, error) {
	return onSocket(func(w *world, s *statement, sock *wsk.Socket, inv *invocation) error {
		var to netip.AddrPort
		var err error
		if s.args[1] != "default" {
			to, err = w.addr(s.args[1])
		}
		data, derr := w.blob(s.args[2])
		flags, ferr := w.flags(s)
		var control []wsk.ControlMessage
		if v, ok := s.keys["control"]; ok {
			b, cerr := w.blob(v)
			err = errors.Join(err, cerr)
			typ := wsk.IPWFPRedirectRecords
			if s.keys["type"] == "context" {
				typ = wsk.IPWFPRedirectContext
			}
			control = []wsk.ControlMessage{{Level: uint32(wsk.IPProtoIP), Type: typ, Data: b}}
		}
		inv.do = func(p *wsk.IRP) ntstatus.Status { return sock.SendTo(data, flags, to, control, p) }
		return errors.Join(err, derr, ferr)
	})(w, s)
}

func sendMessagesCall(w *world, s *statement) (*invocation, error) {
	return onSocket(func(w *world, s *statement, sock *wsk.Socket, inv *invocation) error {
		to, err := w.addr(s.args[1])
		var messages [][]byte
		for _, a := range s.args[2:] {
			messages = append(messages, []byte(a))
		}
		inv.do = func(p *wsk.IRP) ntstatus.Status { return sock.SendMessages(messages, 0, to, nil, p) }
		return err
	})(w, s)
}

func receiveFromCall(w *world, s *statement) (*invocation, error) {
	buf, err := w.buffer(s.args[1])
	if err != nil {
		return nil, err
	}
	return onSocket(func(w *world, s *statement, sock *wsk.Socket, inv *invocation) error {
		flags, err := w.flags(s)
		var from netip.AddrPort
		var control []wsk.ControlMessage
		var controlFlags uint32
		inv.out = buf
		inv.do = func(p *wsk.IRP) ntstatus.Status {
			return sock.ReceiveFrom(buf, flags, &from, &control, &controlFlags, p)
		}
		var n int
		inv.results = func() map[string]any {
			var types []string
			for _, m := range control {
				types = append(types, fmt.Sprint(m.Type))
			}
			return map[string]any{"data": buf[:n], "from": from, "control": strings.Join(types, ","), "flags": int(controlFlags)}
		}
		inv.after = func(p *pending) {
			n = p.status().Information
			for _, m := range control {
				for key, typ := range map[string]uint32{"save-records": wsk.IPWFPRedirectRecords, "save-context": wsk.IPWFPRedirectContext} {
					if name, ok := s.wants[key]; ok && m.Type == typ {
						w.blobs[strings.TrimPrefix(name, "$")] = m.Data
					}
				}
			}
		}
		return err
	})(w, s)
}
