package wsktest

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

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
