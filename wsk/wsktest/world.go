package wsktest

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/sdk/go/sockaddr"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// patience is how long a script waits for what must happen.
const patience = 30 * time.Second

// A world is what one script runs in: an engine, a provider and its clients,
// sockets of WSK and, as their peers, sockets of package net.
type world struct {
	debug wsk.Debug

	engine *host.Engine
	store  *memstore.Store
	ale    *ale.Enforcer
	opts   wsk.Options
	ready  chan struct{}
	addrs  []netip.Addr // what the host has, if the script says so
	remote netip.Addr   // a loopback address that counts as another host's
	later  atomic.Int64 // how far the clock of the layers was put forward

	provider *wsk.Provider
	client   *wsk.Client // of the default registration
	release  func()

	registrations map[string]*registration
	processes     map[string]*wsk.Process
	sockets       map[string]*wsk.Socket
	open          []*wsk.Socket // not closed yet
	handlers      map[string]*handler
	irps          map[string]*irp
	calls         map[string]*pending
	listeners     map[string]*net.TCPListener
	conns         map[string]*net.TCPConn
	packets       map[string]*net.UDPConn
	numbers       map[string]int
	blobs         map[string][]byte
	callouts      map[string]*callout
	filters       int

	mu        sync.Mutex
	decisions []decision
	leaves    int // hops that the script says are left at its end
	cleanup   []func()
}

func newWorld(debug wsk.Debug) *world {
	w := &world{debug: debug, registrations: map[string]*registration{}, processes: map[string]*wsk.Process{}, sockets: map[string]*wsk.Socket{},
		handlers: map[string]*handler{}, irps: map[string]*irp{}, calls: map[string]*pending{}, listeners: map[string]*net.TCPListener{},
		conns: map[string]*net.TCPConn{}, packets: map[string]*net.UDPConn{}, numbers: map[string]int{}, blobs: map[string][]byte{}, callouts: map[string]*callout{}}
	w.engine = host.New(host.Options{OnDecision: w.note})
	w.store = memstore.New(0)
	w.ale = ale.New(ale.Options{Classifier: w.engine, Store: w.store, Now: w.now,
		IsLocal: func(a netip.Addr) bool { return (a.IsLoopback() || a.IsUnspecified()) && a != w.remote }})
	w.opts = wsk.Options{ALE: w.ale, Process: wsk.Process{ID: 1000, AppID: "/bin/proxy"}, Debug: debug, Addresses: w.addresses}
	w.processes["proxy"] = &w.opts.Process
	w.processes["app"] = &wsk.Process{ID: 42, AppID: "/bin/app"}
	return w
}

func (w *world) addresses() ([]netip.Addr, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.addrs != nil {
		return w.addrs, nil
	}
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.later.Load())) }

// the default provider and client, made when first needed.
func (w *world) clientOf() (*wsk.Client, error) {
	if w.client != nil {
		return w.client, nil
	}
	p := w.providerOf()
	reg, npi := new(wsk.Registration), wsk.ProviderNPI{}
	if st := p.Register(&wsk.ClientNPI{Dispatch: &wsk.ClientDispatch{Version: wsk.Version10}}, reg); st != ntstatus.Success {
		return nil, st
	}
	if st := reg.CaptureProviderNPI(wsk.NoWait, &npi); st != ntstatus.Success {
		return nil, st
	}
	w.client = npi.Client
	w.release = func() { reg.ReleaseProviderNPI(); reg.Deregister() }
	return w.client, nil
}

func (w *world) providerOf() *wsk.Provider {
	if w.provider == nil {
		w.provider = wsk.NewProvider(w.opts)
	}
	return w.provider
}

// A decision is what a classification was about and how it ended.
type decision struct {
	layer, remote, flags, app, original, action string
	endpoint, records                           int
}

func (w *world) note(in *fwps.Incoming, d *fwps.Decision) {
	x := decision{layer: in.Layer.String(), flags: in.Flags.String(), app: in.AppID, original: in.OriginalAppID, action: d.Action.String(),
		endpoint: int(in.EndpointID), records: len(in.Records)}
	if in.Remote.IsValid() {
		x.remote = in.Remote.String()
	}
	w.mu.Lock()
	w.decisions = append(w.decisions, x)
	w.mu.Unlock()
}

// end closes what is left and checks that nothing is.
func (w *world) end() error {
	for _, p := range w.calls {
		if p.irp != nil && p.irp.irp != nil {
			p.irp.irp.Cancel()
		}
	}
	for _, s := range w.open {
		if st := w.closeSocket(s); st != ntstatus.Success && st != ntstatus.FileForcedClosed {
			return fmt.Errorf("closing a socket at the end: %w", st)
		}
	}
	for _, f := range w.cleanup {
		f()
	}
	for _, c := range w.conns {
		c.Close()
	}
	for _, l := range w.listeners {
		l.Close()
	}
	for _, c := range w.packets {
		c.Close()
	}
	if w.release != nil {
		if err := within("deregistering the client", func() { w.release() }); err != nil {
			return err
		}
	}
	if n := w.store.Len(); n != w.leaves {
		return fmt.Errorf("%d hops are left in the store at the end, not %d", n, w.leaves)
	}
	return nil
}

func (w *world) closeSocket(s *wsk.Socket) ntstatus.Status {
	p := w.start(nil, func(irp *wsk.IRP) ntstatus.Status { return s.CloseSocket(irp) })
	if err := p.wait(); err != nil {
		return ntstatus.Unsuccessful
	}
	return p.status().Status
}

// within runs f, which must end.
func within(what string, f func()) error {
	done := make(chan struct{})
	go func() { f(); close(done) }()
	return wait(what, done)
}

func wait(what string, done <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s does not end", what)
	}
}

// addr reads an address: a literal, @name for where a socket is, mapped:name
// for that as an IPv4-mapped address, or host:@name for its port elsewhere.
func (w *world) addr(s string) (netip.AddrPort, error) {
	if name, ok := strings.CutPrefix(s, "mapped:"); ok { // as an IPv4-mapped address
		a, err := w.addr("@" + name)
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port()), err
	}
	if host, name, ok := strings.Cut(s, ":@"); ok { // the port of name at another address
		a, err := w.addr("@" + name)
		if err != nil {
			return a, err
		}
		return netip.ParseAddrPort(host + ":" + strconv.Itoa(int(a.Port())))
	}
	name, ok := strings.CutPrefix(s, "@")
	if !ok {
		return netip.ParseAddrPort(s)
	}
	if l := w.listeners[name]; l != nil {
		return l.Addr().(*net.TCPAddr).AddrPort(), nil
	}
	if c := w.conns[name]; c != nil {
		return c.LocalAddr().(*net.TCPAddr).AddrPort(), nil
	}
	if c := w.packets[name]; c != nil {
		return c.LocalAddr().(*net.UDPAddr).AddrPort(), nil
	}
	sock := w.socket(name)
	if sock == nil {
		return netip.AddrPort{}, fmt.Errorf("there is no socket %q", name)
	}
	var a netip.AddrPort
	p := w.start(nil, func(irp *wsk.IRP) ntstatus.Status { return sock.GetLocalAddress(&a, irp) })
	if err := p.wait(); err != nil {
		return a, err
	}
	return a, p.status().Status.Err()
}

// number reads a number: digits, $name, $name-1, $name+100.
func (w *world) number(s string) (int, error) {
	name, ok := strings.CutPrefix(s, "$")
	if !ok {
		n, err := strconv.ParseInt(s, 0, 64)
		return int(n), err
	}
	off := 0
	if i := strings.IndexAny(name, "+-"); i >= 0 {
		var err error
		if off, err = strconv.Atoi(name[i:]); err != nil {
			return 0, err
		}
		name = name[:i]
	}
	n, ok := w.numbers[name]
	if !ok {
		return 0, fmt.Errorf("$%s has no value", name)
	}
	return n + off, nil
}

// blob reads bytes: $name, hex:..., size:N, sockaddr:A, sockaddrs:A,B (two
// SOCKADDR_STORAGE), addresses:A,B (a SOCKET_ADDRESS_LIST), or text.
func (w *world) blob(s string) ([]byte, error) {
	kind, rest, _ := strings.Cut(s, ":")
	switch {
	case strings.HasPrefix(s, "$"):
		b, ok := w.blobs[s[1:]]
		if !ok {
			return nil, fmt.Errorf("%s has no value", s)
		}
		return b, nil
	case kind == "hex":
		return hex.DecodeString(rest)
	case kind == "size":
		n, err := w.number(rest)
		b := make([]byte, n)
		for i := range b {
			b[i] = byte('a' + i%26)
		}
		return b, err
	case kind == "sockaddr":
		a, err := w.addr(rest)
		return wsk.AppendSockaddr(nil, a), err
	case kind == "addresses":
		var list []netip.Addr
		for _, f := range strings.Split(rest, ",") {
			a, err := netip.ParseAddr(f)
			if err != nil {
				return nil, err
			}
			list = append(list, a)
		}
		return wsk.AppendAddressList(nil, list), nil
	case kind == "sockaddrs":
		var b []byte
		for _, f := range strings.Split(rest, ",") {
			a, err := w.addr(f)
			if err != nil {
				return nil, err
			}
			b = sockaddr.Append(b, a)
		}
		return b, nil
	}
	return []byte(s), nil
}
