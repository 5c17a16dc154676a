package wsktest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// settings are the words that make the world.
var settings = map[string]verb{
	"provider":   {args: 0, keys: "ready may-set strict remote fault", do: providerWord},
	"process":    {args: 1, keys: "pid app", do: processWord},
	"make-ready": {args: 0, do: func(w *world, _ *statement) error { close(w.ready); return nil }},
	"register":   {args: 1, keys: "version", do: registerWord},
	"capture":    {args: 1, keys: "wait", do: captureWord},
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
	// drained: what has come was read by WSK.
	"drained": {args: 1, do: func(w *world, s *statement) error {
		sock, out := w.socket(s.args[0]), make([]byte, 8)
		var err error
		ended := within("reading", func() {
			for left := true; left && err == nil; left = !bytes.Equal(out, make([]byte, 8)) {
				p := w.start(nil, func(irp *wsk.IRP) ntstatus.Status {
					return sock.ControlSocket(wsk.Ioctl, wsk.SIOWSKQueryReceiveBacklog, 0, nil, out, nil, irp)
				})
				err = errors.Join(p.wait(), p.status().Status.Err())
			}
		})
		return errors.Join(err, ended)
	}},
	// dial-nobody: a connect that fails, which gives other goroutines time.
	"dial-nobody": {args: 0, do: func(*world, *statement) error {
		for range 20 {
			if c, err := net.Dial("tcp", "127.0.0.1:1"); err == nil {
				return c.Close()
			}
		}
		return nil
	}},
	"characteristics": {args: 1, wants: "high low", do: characteristicsWord},
	// later: the clock of the layers is put forward by so many seconds.
	"later": {args: 1, do: func(w *world, s *statement) error {
		n, err := w.number(s.args[0])
		w.later.Add(int64(n) * int64(time.Second))
		return err
	}},
	"addresses": {args: 1, vari: true, do: func(w *world, s *statement) error {
		var list []netip.Addr
		for _, a := range s.args {
			ip, err := netip.ParseAddr(a)
			if err != nil {
				return err
			}
			list = append(list, ip)
		}
		w.mu.Lock()
		w.addrs = list
		w.mu.Unlock()
		return nil
	}},
	// blob compares bytes.
	"blob": {args: 2, do: func(w *world, s *statement) error {
		b, err := w.blob(s.args[0])
		if err != nil {
			return err
		}
		return w.same(s.args[1], b)
	}},
	// ipv6: the script needs it.
	"ipv6": {args: 0, do: func(*world, *statement) error {
		l, err := net.Listen("tcp6", "[::1]:0")
		if err != nil {
			return errSkip
		}
		return l.Close()
	}},
	// local-port and same-port: a socket's port is chosen, and stays.
	"local-port": {args: 1, do: func(w *world, s *statement) error {
		a, err := w.addr("@" + s.args[0])
		w.numbers["port-"+s.args[0]] = int(a.Port())
		if err == nil && (a.Port() == 0 || !a.Addr().IsUnspecified()) {
			err = fmt.Errorf("bound to %v", a)
		}
		return err
	}},
	"same-port": {args: 1, do: func(w *world, s *statement) error {
		a, err := w.addr("@" + s.args[0])
		if err == nil && (int(a.Port()) != w.numbers["port-"+s.args[0]] || a.Addr().IsUnspecified()) {
			err = fmt.Errorf("is %v now", a)
		}
		return err
	}},
	"leaves": {args: 1, do: func(w *world, s *statement) (err error) {
		w.leaves, err = w.number(s.args[0])
		return err
	}},
	"hops": {args: 1, do: func(w *world, s *statement) error { return w.sameNumber(s.args[0], w.store.Len()) }},
}

// errSkip says that this machine cannot show the case.
var errSkip = errors.New("this machine has no IPv6 loopback")

type registration struct {
	reg      *wsk.Registration
	npi      wsk.ProviderNPI
	captured chan struct{}
	late     ntstatus.Status
	gone     chan struct{}
	allowed  atomic.Bool
	early    bool // it returned before it was allowed to
}

func providerWord(w *world, s *statement) error {
	if w.provider != nil {
		return errors.New("comes first")
	}
	if s.keys["ready"] == "later" {
		w.ready = make(chan struct{})
		w.opts.Ready = w.ready
	}
	if list, ok := s.keys["may-set"]; ok {
		w.opts.MaySetRecords = func(p *wsk.Process) bool {
			for _, name := range strings.Split(list, ",") {
				if w.processes[name] != nil && w.processes[name].ID == p.ID {
					return true
				}
			}
			return false
		}
	}
	if v, ok := s.keys["remote"]; ok {
		a, err := netip.ParseAddr(v)
		if err != nil {
			return err
		}
		w.remote = a
	}
	w.opts.StrictQueries = s.keys["strict"] == "yes"
	if f, ok := s.keys["fault"]; ok {
		st, known := ntstatus.Parse(f)
		if !known {
			return fmt.Errorf("%q is no status", f)
		}
		w.opts.Debug.Fault = func(code uint32) ntstatus.Status {
			if code == wsk.SIOQueryWFPConnectionRedirectRecords {
				return st
			}
			return ntstatus.Success
		}
	}
	return nil
}

func processWord(w *world, s *statement) error {
	n, err := w.number(s.keys["pid"])
	w.processes[s.args[0]] = &wsk.Process{ID: uint32(n), AppID: s.keys["app"]}
	return err
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

func (s *statement) wanted() string {
	if s.want == "" {
		return "STATUS_SUCCESS"
	}
	return s.want
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
