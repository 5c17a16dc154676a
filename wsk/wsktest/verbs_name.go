package wsktest

import (
	"errors"
	"net/netip"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

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
