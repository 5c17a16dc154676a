package wsktest

import (
	"errors"
	"strings"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// eventsCall is: events SOCKET enable|disable a,b
func eventsCall(w *world, s *statement) (*invocation, error) {
	return onSocket(func(w *world, s *statement, sock *wsk.Socket, inv *invocation) error {
		var mask uint32
		for _, e := range strings.Split(s.args[2], ",") {
			bit, ok := eventNames[e]
			if !ok {
				n, err := w.number(e)
				if err != nil {
					return err
				}
				bit = uint32(n)
			}
			mask |= bit
		}
		switch s.args[1] {
		case "disable":
			mask |= wsk.EventDisable
		case "enable":
		default:
			return errors.New("enable or disable")
		}
		in := wsk.EventCallbackControl{NpiID: wsk.NPIWSKInterfaceID, EventMask: mask}.Append(nil)
		inv.do = func(p *wsk.IRP) ntstatus.Status {
			return sock.ControlSocket(wsk.SetOption, wsk.SOWSKEventCallback, wsk.SolSocket, in, nil, nil, p)
		}
		return nil
	})(w, s)
}

// inspectCall is: inspect SOCKET last|unknown accept|reject|pend
func inspectCall(w *world, s *statement) (*invocation, error) {
	return onSocket(func(w *world, s *statement, sock *wsk.Socket, inv *invocation) error {
		var id wsk.InspectID
		if s.args[1] == "last" {
			h := w.handlers[s.args[0]]
			h.mu.Lock()
			id = h.inspects[len(h.inspects)-1]
			h.mu.Unlock()
		}
		action := map[string]wsk.InspectAction{"accept": wsk.InspectAccept, "reject": wsk.InspectReject, "pend": wsk.InspectPend}[s.args[2]]
		inv.do = func(p *wsk.IRP) ntstatus.Status { return sock.InspectComplete(id, action, p) }
		return nil
	})(w, s)
}
