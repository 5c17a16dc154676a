package wsktest

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

var eventNames = map[string]uint32{"receive": wsk.EventReceive, "disconnect": wsk.EventDisconnect, "backlog": wsk.EventSendBacklog,

	"receive-from": wsk.EventReceiveFrom, "accept": wsk.EventAccept}

// A handler is a client's event callbacks for one socket: what they answer, and
// what they heard.
type handler struct {
	w    *world
	name string
	how  map[string]string // event -> what its callback does

	mu       sync.Mutex
	heard    chan event
	hold     chan struct{} // a callback that was told to hold waits for it
	holding  chan struct{} // closed when a callback holds
	inds     []*wsk.DataIndication
	dgrams   []*wsk.DatagramIndication
	accepted int
	inspects []wsk.InspectID
}

type event struct {
	name string
	data []byte
	from netip.AddrPort
	text string
}

// handler makes the callbacks that events says, for example
// "receive:retain,disconnect".
func (w *world) handler(name string, cat wsk.Category, events string) (*handler, wsk.Dispatch) {
	if events == "" {
		return nil, nil
	}
	h := &handler{w: w, name: name, how: map[string]string{}, heard: make(chan event, 1024), hold: make(chan struct{}), holding: make(chan struct{}, 16)}
	for _, e := range strings.Split(events, ",") {
		ev, how, _ := strings.Cut(e, ":")
		h.how[ev] = how
	}
	w.handlers[name] = h
	switch cat {
	case wsk.ConnectionSocket:
		return h, h.connection()
	case wsk.ListenSocket:
		return h, h.listen()
	case wsk.StreamSocket:
		return h, &wsk.ClientStreamDispatch{Listen: h.listen(), Connect: h.connection()}
	case wsk.DatagramSocket:
		return h, h.datagram()
	}
	return h, h.connection() // A basic socket, which must refuse it.
}

func (h *handler) has(event string) bool { _, ok := h.how[event]; return ok }

func (h *handler) does(event string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.how[event]
}

func (h *handler) hear(e event) { h.heard <- e }

// answer is what a callback returns: what it was told when it was called. A
// callback that was told to hold waits for that.
func (h *handler) answer(how string) ntstatus.Status {
	switch how {
	case "retain":
		return ntstatus.Pending
	case "refuse":
		return ntstatus.DataNotAccepted
	case "drop":
		return ntstatus.RequestNotAccepted
	case "hold":
		h.holding <- struct{}{}
		<-h.hold
	}
	return ntstatus.Success
}

func (h *handler) connection() *wsk.ClientConnectionDispatch {
	d := new(wsk.ClientConnectionDispatch)
	if h.has("receive") {
		d.ReceiveEvent = func(_ any, _ uint32, data *wsk.DataIndication, n int, accepted *int) ntstatus.Status {
			if data == nil {
				h.hear(event{name: "receive", text: "dead"})
				return ntstatus.Success
			}
			how := h.does("receive")
			h.mu.Lock()
			h.inds = append(h.inds, data)
			h.mu.Unlock()
			h.hear(event{name: "receive", data: data.Buffer})
			if how == "half" {
				*accepted = n / 2
			}
			return h.answer(how)
		}
	}
	if h.has("disconnect") {
		d.DisconnectEvent = func(_ any, flags uint32) ntstatus.Status {
			h.hear(event{name: "disconnect", text: map[uint32]string{0: "graceful", wsk.FlagAbortive: "abortive"}[flags]})
			return ntstatus.Success
		}
	}
	if h.has("backlog") {
		d.SendBacklogEvent = func(_ any, ideal int) ntstatus.Status {
			h.hear(event{name: "backlog", text: fmt.Sprint(ideal > 0)})
			return ntstatus.Success
		}
	}
	return d
}

func (h *handler) listen() *wsk.ClientListenDispatch {
	d := new(wsk.ClientListenDispatch)
	if h.has("accept") {
		d.AcceptEvent = func(_ any, _ uint32, local, remote netip.AddrPort, s *wsk.Socket) (any, *wsk.ClientConnectionDispatch, ntstatus.Status) {
			st := h.answer(h.does("accept"))
			h.mu.Lock()
			h.accepted++
			name := fmt.Sprintf("%s.%d", h.name, h.accepted)
			h.mu.Unlock()
			if st == ntstatus.Success {
				h.w.keep(name, s)
			}
			h.hear(event{name: "accept", from: remote, text: name})
			return name, nil, st
		}
	}
	if h.has("inspect") {
		d.InspectEvent = func(_ any, local, remote netip.AddrPort, id wsk.InspectID) wsk.InspectAction {
			how := h.does("inspect")
			h.mu.Lock()
			h.inspects = append(h.inspects, id)
			h.mu.Unlock()
			h.hear(event{name: "inspect", from: remote})
			return map[string]wsk.InspectAction{"accept": wsk.InspectAccept, "reject": wsk.InspectReject, "pend": wsk.InspectPend}[how]
		}
	}
	if h.has("abort") {
		d.AbortEvent = func(_ any, _ wsk.InspectID) ntstatus.Status {
			h.hear(event{name: "abort"})
			return ntstatus.Success
		}
	}
	return d
}

func (h *handler) datagram() *wsk.ClientDatagramDispatch {
	return &wsk.ClientDatagramDispatch{ReceiveFromEvent: func(_ any, _ uint32, data *wsk.DatagramIndication) ntstatus.Status {
		how := h.does("receive-from")
		h.mu.Lock()
		h.dgrams = append(h.dgrams, data)
		h.mu.Unlock()
		h.hear(event{name: "receive-from", data: data.Buffer, from: data.Remote})
		return h.answer(how)
	}}
}

func (w *world) sameAll(s *statement, got map[string]any) error {
	for k, v := range s.keys {
		if err := w.same(v, got[k]); err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
	}
	return nil
}
