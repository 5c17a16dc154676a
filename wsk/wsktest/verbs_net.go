package wsktest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
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
				var p *pending
				p, err = w.start(nil, func(irp *wsk.IRP) ntstatus.Status {
					return sock.ControlSocket(wsk.Ioctl, wsk.SIOWSKQueryReceiveBacklog, 0, nil, out, nil, irp)
				})
				err = errors.Join(err, p.wait(), p.status().Status.Err())
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

// peers are the words about sockets of package net, the other ends.
var peers = map[string]verb{
	"listener": {args: 1, keys: "at", do: func(w *world, s *statement) error {
		at := s.keys["at"]
		if at == "" {
			at = "127.0.0.1:0"
		}
		l, err := net.Listen("tcp", at)
		if err == nil {
			w.listeners[s.args[0]] = l.(*net.TCPListener)
		}
		return err
	}},
	"dial": {args: 2, do: func(w *world, s *statement) error {
		a, err := w.addr(s.args[1])
		if err != nil {
			return err
		}
		c, err := net.DialTimeout("tcp", a.String(), patience)
		if err == nil {
			w.conns[s.args[0]] = c.(*net.TCPConn)
		}
		return err
	}},
	// dial-reset: the connection is reset, during the dial or after.
	"dial-reset": {args: 1, do: func(w *world, s *statement) error {
		a, err := w.addr(s.args[0])
		if err != nil {
			return err
		}
		c, err := net.DialTimeout("tcp", a.String(), patience)
		if err == nil {
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			_, err = c.Read(make([]byte, 1))
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			return fmt.Errorf("%v, want a reset", err)
		}
		return nil
	}},
	"take": {args: 2, do: func(w *world, s *statement) error { // take LISTENER NAME
		l := w.listeners[s.args[0]]
		if err := l.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		c, err := l.AcceptTCP()
		if err == nil {
			w.conns[s.args[1]] = c
		}
		return err
	}},
	// relay: accepts one connection and carries it to another address.
	"relay": {args: 2, do: relayWord},
	"peer":  {args: 2, vari: true, do: peerWord},
	"packet-peer": {args: 1, do: func(w *world, s *statement) error {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err == nil {
			w.packets[s.args[0]] = c
		}
		return err
	}},
	"packet": {args: 3, vari: true, do: packetWord},
}

func relayWord(w *world, s *statement) error {
	to, err := w.addr(s.args[1])
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	w.listeners[s.args[0]] = l.(*net.TCPListener)
	done := make(chan struct{})
	go func() {
		defer close(done)
		in, err := l.Accept()
		if err != nil {
			return
		}
		defer in.Close()
		out, err := net.Dial("tcp", to.String())
		if err != nil {
			return
		}
		defer out.Close()
		_, _ = io.Copy(out, in) // Until the application closes.
	}()
	w.cleanup = append(w.cleanup, func() { l.Close(); <-done })
	return nil
}

// peerWord is: peer NAME send DATA | receive DATA | eof | reset | close | abort | shut
func peerWord(w *world, s *statement) error {
	c := w.conns[s.args[0]]
	if c == nil {
		return fmt.Errorf("there is no peer %q", s.args[0])
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	var data []byte
	if len(s.args) == 3 {
		var err error
		if data, err = w.blob(s.args[2]); err != nil {
			return err
		}
	}
	switch s.args[1] {
	case "send":
		_, err := c.Write(data)
		return err
	case "receive":
		buf := make([]byte, len(data))
		if _, err := io.ReadFull(c, buf); err != nil {
			return err
		}
		if !bytes.Equal(buf, data) {
			return fmt.Errorf("received %q", buf)
		}
		return nil
	case "eof":
		if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			return fmt.Errorf("%d bytes and %v, want the end", n, err)
		}
		return nil
	case "reset":
		_, err := io.Copy(io.Discard, c)
		if !errors.Is(err, syscall.ECONNRESET) {
			return fmt.Errorf("%v, want a reset", err)
		}
		return nil
	case "gone": // the connection is reset, now or when something is sent
		for {
			if _, err := c.Write([]byte("x")); err != nil {
				return nil
			}
		}
	case "silent":
		c.SetReadDeadline(time.Unix(1, 0))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("%v, want nothing", err)
		}
		return nil
	case "close":
		delete(w.conns, s.args[0])
		return c.Close()
	case "shut":
		return c.CloseWrite()
	case "abort":
		delete(w.conns, s.args[0])
		c.SetLinger(0)
		return c.Close()
	}
	return fmt.Errorf("%q is nothing a peer does", s.args[1])
}

// packetWord is: packet NAME send ADDRESS DATA | receive DATA
func packetWord(w *world, s *statement) error {
	c := w.packets[s.args[0]]
	if c == nil {
		return fmt.Errorf("there is no peer %q", s.args[0])
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if s.args[1] == "send" && len(s.args) == 4 {
		to, err := w.addr(s.args[2])
		if err != nil {
			return err
		}
		data, err := w.blob(s.args[3])
		if err == nil {
			_, err = c.WriteToUDPAddrPort(data, to)
		}
		return err
	}
	if s.args[1] != "receive" {
		return errors.New("send ADDRESS DATA or receive DATA")
	}
	want, err := w.blob(s.args[2])
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	n, _, err := c.ReadFromUDPAddrPort(buf)
	if err != nil || !bytes.Equal(buf[:n], want) {
		return fmt.Errorf("received %q, %v", buf[:n], err)
	}
	return nil
}
