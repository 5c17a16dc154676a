package wsktest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/winsock"
)

// userVerbs are the words of user mode.
var userVerbs = map[string]verb{
	"wsaioctl": {args: 2, keys: "in out overlapped returned not-found", wants: "bytes untouched save data", do: wsaIoctlWord},
	"wsagetsockopt": {args: 2, wants: "bytes is", do: func(w *world, s *statement) error {
		buf := make([]byte, 128)
		o := socketOptions[s.args[1]]
		n, e := winsock.Socket{WSK: w.socket(s.args[0])}.Getsockopt(o[0], o[1], buf)
		if err := sameError(s.want, e); err != nil {
			return err
		}
		a, _ := wsk.ParseSockaddr(buf)
		for k, v := range s.wants {
			if err := w.same(v, map[string]any{"bytes": n, "is": a}[k]); err != nil {
				return err
			}
		}
		return nil
	}},
	"control-data": {args: 1, keys: "level type", do: controlDataWord},
}

func sameError(want string, got winsock.Error) error {
	if want == "" {
		want = "success"
	}
	for _, name := range strings.Split(want, "|") {
		if got.Error() == name {
			return nil
		}
	}
	return fmt.Errorf("error %v (%d), want %s", got, uint32(got), want)
}

func wsaIoctlWord(w *world, s *statement) error {
	code, _, err := w.code(wsk.Ioctl, s.args[1])
	if err != nil {
		return err
	}
	var in []byte
	if v, ok := s.keys["in"]; ok {
		if in, err = w.blob(v); err != nil {
			return err
		}
	}
	out, err := w.buffer(s.keys["out"])
	if err != nil {
		return err
	}
	fill := bytes.Clone(out)
	sock := winsock.Socket{WSK: w.socket(s.args[0])}
	if s.keys["not-found"] == "1168" {
		sock.NotFound = winsock.ErrorNotFound
	}
	var n uint32
	returned := &n
	if s.keys["returned"] == "no" {
		returned = nil
	}
	var e winsock.Error
	if s.keys["overlapped"] == "yes" {
		if e, n, err = overlapped(sock, code, in, out); err != nil {
			return err
		}
	} else {
		e = sock.WSAIoctl(code, in, out, returned, nil, nil)
	}
	if err := sameError(s.want, e); err != nil {
		return err
	}
	return w.compareUser(s, out, fill, int(n))
}

func (w *world) compareUser(s *statement, out, fill []byte, n int) (err error) {
	for k, v := range s.wants {
		switch k {
		case "bytes":
			err = w.sameNumber(v, n)
		case "save":
			w.blobs[strings.TrimPrefix(v, "$")] = bytes.Clone(out[:n])
		case "data":
			err = w.same(v, out[:n])
		case "untouched":
			err = w.untouched(v, &pending{out: out, fill: fill})
		}
		if err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
	}
	return nil
}

// overlapped makes the call with an overlapped structure and waits for its
// completion routine.
func overlapped(sock winsock.Socket, code uint32, in, out []byte) (winsock.Error, uint32, error) {
	o, done := new(winsock.Overlapped), make(chan struct{})
	var late winsock.Error
	var n uint32
	e := sock.WSAIoctl(code, in, out, nil, o, func(err winsock.Error, bytes uint32, _ *winsock.Overlapped) {
		late, n = err, bytes
		close(done)
	})
	if err := wait("the overlapped call", done); err != nil {
		return 0, 0, err
	}
	if e != winsock.WSAIOPending && e != late {
		return 0, 0, fmt.Errorf("the call returned %v, its completion %v", e, late)
	}
	if m, err := o.Result(true); err != late || m != n {
		return 0, 0, fmt.Errorf("WSAGetOverlappedResult says %v and %d bytes, the routine %v and %d", err, m, late, n)
	}
	return late, n, nil
}

// controlDataWord writes records as control data and reads them back.
func controlDataWord(w *world, s *statement) error {
	data, err := w.blob(s.args[0])
	if err != nil {
		return err
	}
	level, err1 := w.number(s.keys["level"])
	typ, err2 := w.number(s.keys["type"])
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	b := winsock.AppendControl(nil, wsk.ControlMessage{Level: uint32(level), Type: uint32(typ), Data: data},
		wsk.ControlMessage{Level: uint32(level), Type: uint32(typ), Data: []byte("x")})
	back, err := winsock.ParseControl(b)
	if err != nil || len(back) != 2 || !bytes.Equal(back[0].Data, data) || back[0].Type != uint32(typ) || back[0].Level != uint32(level) {
		return fmt.Errorf("%v %v", back, err)
	}
	return nil
}
