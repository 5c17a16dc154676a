package wsktest

import (
	"errors"
	"sync/atomic"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// registering are the words of WskRegister to WskDeregister.
var registering = map[string]verb{
	"register": {args: 1, keys: "version", do: registerWord},
	"capture":  {args: 1, keys: "wait", do: captureWord},
	"capture-later": {args: 1, do: func(w *world, s *statement) error {
		r := w.registrations[s.args[0]]
		r.captured = make(chan struct{})
		started := make(chan struct{})
		go func() {
			close(started)
			var npi wsk.ProviderNPI
			r.late = r.reg.CaptureProviderNPI(wsk.InfiniteWait, &npi)
			close(r.captured)
		}()
		<-started
		return nil
	}},
	"captured": {args: 1, do: func(w *world, s *statement) error {
		r := w.registrations[s.args[0]]
		if err := wait("the capture", r.captured); err != nil {
			return err
		}
		return w.sameStatus(s.want, r.late)
	}},
	"release-npi": {args: 1, do: func(w *world, s *statement) error { w.registrations[s.args[0]].reg.ReleaseProviderNPI(); return nil }},
	// use: the default client is this registration's.
	"use": {args: 1, do: func(w *world, s *statement) error { w.client = w.registrations[s.args[0]].npi.Client; return nil }},
	"deregister-later": {args: 1, do: func(w *world, s *statement) error {
		r := w.registrations[s.args[0]]
		r.gone = make(chan struct{})
		started := make(chan struct{})
		go func() {
			close(started)
			r.reg.Deregister()
			r.early = !r.allowed.Load()
			close(r.gone)
		}()
		<-started
		return nil
	}},
	"deregistering": {args: 1, do: func(w *world, s *statement) error {
		select {
		case <-w.registrations[s.args[0]].gone:
			return errors.New("WskDeregister has returned")
		default:
			return nil
		}
	}},
	// allow: from here on WskDeregister may return.
	"allow": {args: 1, do: func(w *world, s *statement) error { w.registrations[s.args[0]].allowed.Store(true); return nil }},
	"deregistered": {args: 1, do: func(w *world, s *statement) error {
		r := w.registrations[s.args[0]]
		if err := wait("WskDeregister", r.gone); err != nil {
			return err
		}
		if r.early {
			return errors.New("WskDeregister returned too early")
		}
		return nil
	}},
	"characteristics": {args: 1, wants: "high low", do: characteristicsWord},
}

type registration struct {
	reg      *wsk.Registration
	npi      wsk.ProviderNPI
	captured chan struct{}
	late     ntstatus.Status
	gone     chan struct{}
	allowed  atomic.Bool
	early    bool // it returned before it was allowed to
}

func registerWord(w *world, s *statement) error {
	version := wsk.Version10
	if v, ok := s.keys["version"]; ok {
		n, err := w.number(v)
		if err != nil {
			return err
		}
		version = uint16(n)
	}
	r := w.registrations[s.args[0]]
	if r == nil {
		r = &registration{reg: new(wsk.Registration)}
	}
	st := w.providerOf().Register(&wsk.ClientNPI{Dispatch: &wsk.ClientDispatch{Version: version}}, r.reg)
	if st == ntstatus.Success {
		w.registrations[s.args[0]] = r
		w.cleanup = append(w.cleanup, r.reg.Deregister)
	}
	return w.sameStatus(s.wanted(), st)
}

func captureWord(w *world, s *statement) error {
	n, err := w.number(s.keys["wait"])
	if err != nil {
		return err
	}
	r := w.registrations[s.args[0]]
	return w.sameStatus(s.wanted(), r.reg.CaptureProviderNPI(uint32(n), &r.npi))
}

func characteristicsWord(w *world, s *statement) error {
	var c wsk.ProviderCharacteristics
	if err := w.sameStatus(s.wanted(), w.registrations[s.args[0]].reg.QueryProviderCharacteristics(&c)); err != nil {
		return err
	}
	for k, v := range s.wants {
		if err := w.sameNumber(v, map[string]int{"high": int(c.HighestVersion), "low": int(c.LowestVersion)}[k]); err != nil {
			return err
		}
	}
	return nil
}
