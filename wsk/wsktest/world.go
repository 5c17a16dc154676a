package wsktest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
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

// clientOf is the default client, of the default provider: both are made when first
// needed.
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
