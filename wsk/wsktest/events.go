package wsktest

import (
	"errors"
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
func (w *world) handler(name string, cat wsk.Category, events string) (*handler, wsk.Dispatch, error) {
	if events == "" {
		return nil, nil, nil
	}
	h := &handler{w: w, name: name, how: map[string]string{}, heard: make(chan event, 1024), hold: make(chan struct{}), holding: make(chan struct{}, 16)}
	for _, e := range strings.Split(events, ",") {
		ev, how, _ := strings.Cut(e, ":")
		h.how[ev] = how
	}
	w.handlers[name] = h
	switch cat {
	case wsk.ConnectionSocket:
		return h, h.connection(), nil
	case wsk.ListenSocket:
		return h, h.listen(), nil
	case wsk.StreamSocket:
		return h, &wsk.ClientStreamDispatch{Listen: h.listen(), Connect: h.connection()}, nil
	case wsk.DatagramSocket:
		return h, h.datagram(), nil
	}
	return h, h.connection(), nil // A basic socket, which must refuse it.
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

// waits are the words about calls and events that are under way.
var waits = map[string]verb{
	"await":  {args: 1, wants: callWants + " data local remote from control flags is", do: awaitCall},
	"cancel": {args: 1, wants: "", do: cancelCall},
	// still: a call has not been completed.
	"still": {args: 1, do: func(w *world, s *statement) error {
		p := w.calls[s.args[0]]
		if p == nil {
			return fmt.Errorf("there is no call %q", s.args[0])
		}
		select {
		case <-p.irp.done:
			return errors.New("the call was completed")
		default:
			return nil
		}
	}},
	"heard": {args: 2, keys: "data from is", do: heardEvent},
	// silent: nothing more was heard.
	"silent": {args: 1, do: func(w *world, s *statement) error {
		select {
		case e := <-w.handlers[s.args[0]].heard:
			return fmt.Errorf("heard %s %q %s", e.name, e.data, e.text)
		default:
			return nil
		}
	}},
	"holds":  {args: 1, do: func(w *world, s *statement) error { return wait("the callback", w.handlers[s.args[0]].held()) }},
	"unhold": {args: 1, do: func(w *world, s *statement) error { close(w.handlers[s.args[0]].hold); return nil }},
	// answer: what a callback does from now on.
	"answer": {args: 3, do: func(w *world, s *statement) error {
		h := w.handlers[s.args[0]]
		h.mu.Lock()
		h.how[s.args[1]] = s.args[2]
		h.mu.Unlock()
		return nil
	}},
	// retained: hears until so many bytes are retained.
	"retained": {args: 2, do: func(w *world, s *statement) error {
		n, err := w.number(s.args[1])
		if err != nil {
			return err
		}
		h := w.handlers[s.args[0]]
		return within("the data", func() {
			for n > 0 {
				n -= len((<-h.heard).data)
			}
		})
	}},
	"release-datagrams": {args: 1, do: func(w *world, s *statement) error {
		h := w.handlers[s.args[0]]
		h.mu.Lock()
		defer h.mu.Unlock()
		kept := 0
		for _, d := range h.dgrams {
			if w.socket(s.args[0]).ReleaseDatagram(d) == ntstatus.Success {
				kept++
			}
		}
		h.dgrams = nil
		return w.sameNumber("1", kept)
	}},
	"release": {args: 1, do: releaseIndication},
	"irp":     {args: 2, keys: "routine on stack", do: irpWord},
	"routine": {args: 1, keys: "ran pending status info", do: routineWord},
	"owner":   {args: 1, keys: "told status info pending", do: ownerWord},
	// refused SOCKET-CALL SOCKET IRP: the call does not take the IRP.
	"refused":        {args: 3, do: refusedWord},
	"forget-routine": {args: 1, do: func(w *world, s *statement) error { w.irps[s.args[0]].none = true; return nil }},
	"scribble": {args: 1, do: func(w *world, s *statement) error {
		clear(w.blobs[s.args[0]])
		return nil
	}},
	"reuse": {args: 1, do: func(w *world, s *statement) error { w.irps[s.args[0]].irp.Reuse(ntstatus.Unsuccessful); return nil }},
	"complete-request": {args: 1, do: func(w *world, s *statement) error {
		w.irps[s.args[0]].irp.CompleteRequest()
		return nil
	}},
	"irp-status": {args: 2, do: func(w *world, s *statement) error {
		return w.sameStatus(s.args[1], w.irps[s.args[0]].irp.IoStatus().Status)
	}},
}

func (h *handler) held() <-chan struct{} {
	c := make(chan struct{})
	go func() { <-h.holding; close(c) }()
	return c
}

func awaitCall(w *world, s *statement) error {
	p := w.calls[s.args[0]]
	if p == nil {
		return fmt.Errorf("there is no call %q", s.args[0])
	}
	delete(w.calls, s.args[0])
	return w.settle(s, p)
}

func cancelCall(w *world, s *statement) error {
	var i *irp
	if p := w.calls[s.args[0]]; p != nil {
		i = p.irp
	} else if i = w.irps[s.args[0]]; i == nil {
		return fmt.Errorf("there is no call and no IRP %q", s.args[0])
	}
	got := i.irp.Cancel()
	if s.want != "" && s.want != strings.ToUpper(fmt.Sprint(got)) {
		return fmt.Errorf("IoCancelIrp returned %v", got)
	}
	return nil
}

func heardEvent(w *world, s *statement) error {
	h := w.handlers[s.args[0]]
	if h == nil {
		return fmt.Errorf("%q has no callbacks", s.args[0])
	}
	var e event
	err := within("the event", func() { e = <-h.heard })
	switch {
	case err != nil:
		return err
	case e.name != s.args[1]:
		return fmt.Errorf("heard %s %q %s", e.name, e.data, e.text)
	}
	for k, v := range s.keys {
		err := w.same(v, map[string]any{"data": e.data, "from": e.from, "is": e.text}[k])
		if err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
	}
	return nil
}

func releaseIndication(w *world, s *statement) error {
	h := w.handlers[s.args[0]]
	h.mu.Lock()
	defer h.mu.Unlock()
	st := ntstatus.InvalidParameter
	switch sock := w.socket(s.args[0]); {
	case len(h.inds) > 0:
		st, h.inds = sock.Release(h.inds[0]), h.inds[1:]
	case len(h.dgrams) > 0:
		st, h.dgrams = sock.ReleaseDatagram(h.dgrams[0]), h.dgrams[1:]
	default:
		st = sock.Release(&wsk.DataIndication{})
	}
	want := s.want
	if want == "" {
		want = "STATUS_SUCCESS"
	}
	return w.sameStatus(want, st)
}

func irpWord(w *world, s *statement) error {
	i := newIRP(s.args[1] == "down")
	if s.args[1] != "down" && s.args[1] != "own" {
		return errors.New("own or down")
	}
	switch s.keys["routine"] {
	case "", "keep":
	case "free":
		i.freeInside = true
	case "up":
		i.answer = ntstatus.Success
	case "unmarked":
		i.answer, i.unmarked = ntstatus.Success, true
	case "none":
		i.none = true
	default:
		return errors.New("the routine is keep, free, up or none")
	}
	if on, ok := s.keys["on"]; ok {
		var err error
		if i.on, err = parseInvoke(on); err != nil {
			return err
		}
	}
	stack := 1
	if i.down {
		stack = 2 // the client's and WSK's
	}
	if v, ok := s.keys["stack"]; ok {
		var err error
		if stack, err = w.number(v); err != nil {
			return err
		}
	}
	i.build(stack)
	w.irps[s.args[0]] = i
	return nil
}

func routineWord(w *world, s *statement) error {
	i := w.irps[s.args[0]]
	if i == nil {
		return fmt.Errorf("there is no IRP %q", s.args[0])
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ran > 0 && !i.context {
		return errors.New("the routine got another context")
	}
	return w.sameAll(s, map[string]any{"ran": i.ran, "pending": i.pended, "status": i.routineSaw.Status.Error(), "info": i.routineSaw.Information})
}

func ownerWord(w *world, s *statement) error {
	i := w.irps[s.args[0]]
	if i == nil {
		return fmt.Errorf("there is no IRP %q", s.args[0])
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return w.sameAll(s, map[string]any{"told": i.told, "status": i.ownerSaw.Status.Error(), "info": i.ownerSaw.Information, "pending": i.ownerPended})
}

// refusedWord makes a call that must return STATUS_INVALID_PARAMETER without a
// routine that runs.
func refusedWord(w *world, s *statement) error {
	i, sock := w.irps[s.args[2]], w.socket(s.args[1])
	if i == nil || sock == nil || s.args[0] != "local" {
		return errors.New("local SOCKET IRP")
	}
	i.mu.Lock()
	before := i.ran + i.told
	i.mu.Unlock()
	var a netip.AddrPort
	if err := w.sameStatus("STATUS_INVALID_PARAMETER", i.call(func(p *wsk.IRP) ntstatus.Status { return sock.GetLocalAddress(&a, p) })); err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ran+i.told != before {
		return errors.New("somebody was told")
	}
	return nil
}

func (w *world) sameAll(s *statement, got map[string]any) error {
	for k, v := range s.keys {
		if err := w.same(v, got[k]); err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
	}
	return nil
}
