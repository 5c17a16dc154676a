package wsktest

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

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
			var types, levels []string
			for _, m := range control {
				types, levels = append(types, fmt.Sprint(m.Type)), append(levels, fmt.Sprint(m.Level))
			}
			return map[string]any{"levels": strings.Join(levels, ","), "data": buf[:n], "from": from, "control": strings.Join(types, ","), "flags": int(controlFlags)}
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
