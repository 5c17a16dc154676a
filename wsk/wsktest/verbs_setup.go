package wsktest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// settings are the words that make the world, and those that look at it.
var settings = map[string]verb{
	"provider":   {args: 0, keys: "ready may-set strict remote fault", do: providerWord},
	"process":    {args: 1, keys: "pid app", do: processWord},
	"make-ready": {args: 0, do: func(w *world, _ *statement) error { close(w.ready); return nil }},
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
			if code == wsk.SIOQueryWFPConnectionRedirectRecords || code == wsk.SIOSetWFPConnectionRedirectRecords {
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

func (s *statement) wanted() string {
	if s.want == "" {
		return "STATUS_SUCCESS"
	}
	return s.want
}
