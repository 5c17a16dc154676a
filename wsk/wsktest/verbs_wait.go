package wsktest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

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
