package dnsnames

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce/internal/reach"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/loglimit"
)

// Options configure a Proxy.
type Options struct {
	ALE   *ale.Enforcer // Required: of the connections that are redirected here.
	Names *Names        // Required: what learns.
	// Listen is where it listens, with UDP and TCP. Required; port zero lets the
	// system choose.
	Listen netip.AddrPort
	// Resolver is asked in the place of the one that the program meant. Optional.
	Resolver netip.AddrPort
	// Trusted are the resolvers whose answers are remembered where there is no Resolver:
	// those that the system has configured. Who runs a program can have another port
	// of the same address. Optional.
	Trusted []netip.AddrPort
	// ProcessID and AppID are this process's.
	ProcessID uint32
	AppID     string
	// Logf reports queries that could not be carried. Optional.
	Logf func(format string, args ...any)
}

const (
	maxQueries = 256  // under way at a time; others wait
	maxWaiting = 1024 // and more are refused: nobody fills the memory with questions
	patience   = 10 * time.Second
)

// A Proxy carries DNS queries to where they were going and remembers the answers.
type Proxy struct {
	opts    Options
	udp     net.PacketConn
	tcp     *listener
	socket  *ale.Socket // of udp
	servers []*dns.Server
	waiting chan struct{}
	slots   chan struct{}
	log     *loglimit.Log
	ctx     context.Context
	cancel  context.CancelFunc
	serving sync.WaitGroup
	once    sync.Once
}

// Start starts a proxy.
func Start(ctx context.Context, opts Options) (*Proxy, error) {
	udp, tcp, err := listen(ctx, opts.Listen)
	if err != nil {
		return nil, err
	}
	p := newProxy(ctx, opts, udp, tcp)
	if err := p.start(); err != nil {
		return nil, err
	}
	return p, nil
}

// newProxy returns one for two sockets, which it closes.
func newProxy(ctx context.Context, opts Options, udp net.PacketConn, tcp *net.TCPListener) *Proxy {
	p := &Proxy{opts: opts, udp: udp, waiting: make(chan struct{}, maxWaiting), slots: make(chan struct{}, maxQueries), log: loglimit.New(opts.Logf)}
	p.ctx, p.cancel = context.WithCancel(ctx)
	in := fwps.Incoming{ProcessID: opts.ProcessID, AppID: opts.AppID, Local: p.Addr(), Protocol: fwps.ProtocolUDP}
	p.socket = opts.ALE.NewSocket(in)
	in.Protocol = fwps.ProtocolTCP
	p.tcp = &listener{TCPListener: tcp, socket: opts.ALE.NewSocket(in), ctx: p.ctx, log: p.log,
		deciding: make(chan struct{}, maxDeciding), decided: make(chan net.Conn)}
	handler := dns.HandlerFunc(p.answer)
	p.servers = []*dns.Server{{PacketConn: udp, Handler: handler, UDPSize: dns.MaxMsgSize}, {Listener: p.tcp, Handler: handler}}
	return p
}

// start lets it serve. If it fails it is closed.
func (p *Proxy) start() error {
	p.serving.Go(p.tcp.serve)
	for _, s := range p.servers {
		if err := p.serve(s); err != nil {
			p.Close()
			return fmt.Errorf("dns: %w", err)
		}
	}
	return nil
}

// serve lets a server run until it is shut down.
func (p *Proxy) serve(s *dns.Server) error {
	started, ended := make(chan struct{}), make(chan error, 1)
	s.NotifyStartedFunc = func() { close(started) }
	p.serving.Go(func() {
		err := s.ActivateAndServe()
		ended <- err
		select {
		case <-started:
			if err != nil && p.ctx.Err() == nil {
				p.log.Printf("dns: %v", err)
			}
		default: // Whoever starts it is told.
		}
	})
	select {
	case <-started:
		return nil
	case err := <-ended:
		return err
	}
}

// listen takes a port that is free for both protocols.
func listen(ctx context.Context, at netip.AddrPort) (net.PacketConn, *net.TCPListener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	for try := 0; ; try++ {
		tcp, err := lc.Listen(ctx, "tcp", at.String())
		if err != nil {
			return nil, nil, err
		}
		udp, err := lc.ListenPacket(ctx, "udp", tcp.Addr().String())
		if err == nil {
			return udp, tcp.(*net.TCPListener), nil
		}
		tcp.Close()
		if at.Port() != 0 || try == 10 {
			return nil, nil, err
		}
	}
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() netip.AddrPort { return p.udp.LocalAddr().(*net.UDPAddr).AddrPort() }

// Close ends it and what is under way. Later calls do nothing.
func (p *Proxy) Close() {
	p.once.Do(func() {
		p.cancel()
		for _, s := range p.servers {
			_ = s.ShutdownContext(p.ctx) // The context is done: it closes and does not wait.
		}
		p.udp.Close() // Of a server that did not start nobody has.
		p.tcp.Close()
		p.serving.Wait() // They have waited for all queries then.
		p.socket.Close()
		p.tcp.socket.Close()
		p.log.Close()
	})
}

// Shutdown is Close: a query that is cut off is asked again.
func (p *Proxy) Shutdown(context.Context) { p.Close() }

// answer carries one query.
func (p *Proxy) answer(w dns.ResponseWriter, q *dns.Msg) {
	if !p.enter(w) {
		_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)) // The program may be gone.
		return
	}
	defer func() { <-p.slots }()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	r, err := p.carry(ctx, w, q)
	if err != nil {
		p.log.Printf("dns: query of %s: %v", w.RemoteAddr(), err)
		rcode := dns.RcodeServerFailure
		if b := (*ale.BlockedError)(nil); errors.As(err, &b) || errors.Is(err, errNowhere) {
			rcode = dns.RcodeRefused
		}
		r = new(dns.Msg).SetRcode(q, rcode)
	}
	fit(r, w, q)
	_ = w.WriteMsg(r) // The program may be gone.
}

// fit makes an answer as small as it came, or smaller: without the pointers that it was
// compressed with it might not fit the program's buffer any more.
func fit(r *dns.Msg, w dns.ResponseWriter, q *dns.Msg) {
	size := dns.MaxMsgSize
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		size = dns.MinMsgSize
		if opt := q.IsEdns0(); opt != nil {
			size = int(opt.UDPSize())
		}
	}
	r.Truncate(size)
}

// enter waits for a slot, which the caller leaves; false if there is none.
func (p *Proxy) enter(w dns.ResponseWriter) bool {
	select {
	case p.waiting <- struct{}{}:
		defer func() { <-p.waiting }()
	default:
		p.log.Printf("dns: query of %s: refused: %d wait for resolvers that do not answer", w.RemoteAddr(), maxWaiting)
		return false
	}
	select {
	case p.slots <- struct{}{}:
		return true
	case <-p.ctx.Done():
		return false
	}
}

var errNowhere = errors.New("it was not redirected here, and the policy names no resolver")

// carry asks the resolver that a query was meant for.
func (p *Proxy) carry(ctx context.Context, w dns.ResponseWriter, q *dns.Msg) (*dns.Msg, error) {
	flow, protocol, err := p.flow(ctx, w)
	if err != nil {
		return nil, err
	}
	to := p.opts.Resolver
	if !to.IsValid() {
		if !flow.Redirected {
			return nil, errNowhere
		}
		to = netip.AddrPortFrom(flow.Original.Addr().Unmap(), flow.Original.Port())
	}
	r, err := p.ask(ctx, flow, protocol, to, q)
	if err != nil {
		return nil, err
	}
	if a, ok := read(q, r); ok && p.Trusts(to) {
		p.opts.Names.Learn(asker(flow), to, a.name, a.addrs, a.ttl)
	}
	return r, nil
}

// asker is the client whose query a flow brought: that of the record, or who sent it here.
func asker(f *ale.Flow) netip.Addr {
	if h := f.Records.Last(); h != nil {
		return h.Client
	}
	if a := f.Remote.Addr().Unmap(); reach.Of(a) != reach.Host && a != f.Local.Addr().Unmap() {
		return a
	}
	return netip.Addr{} // A program of this host.
}

// Trusts reports whether the answers of a resolver are remembered.
func (p *Proxy) Trusts(resolver netip.AddrPort) bool {
	if p.opts.Resolver.IsValid() {
		return resolver == p.opts.Resolver
	}
	return slices.Contains(p.opts.Trusted, resolver)
}

// flow is what is known about how a query came here.
func (p *Proxy) flow(ctx context.Context, w dns.ResponseWriter) (f *ale.Flow, protocol uint8, err error) {
	switch from := w.RemoteAddr().(type) {
	case *net.UDPAddr:
		_, f, _, err = p.socket.ReceiveFrom(ctx, from.AddrPort())
		return f, fwps.ProtocolUDP, err
	case *net.TCPAddr:
		if f, ok := p.tcp.flows.Load(from.AddrPort()); ok {
			return f.(*ale.Flow), fwps.ProtocolTCP, nil
		}
	}
	return nil, 0, errors.New("its connection is closed")
}

// ask asks a resolver as a proxy does: with the records that the query came with,
// through the layers.
func (p *Proxy) ask(ctx context.Context, flow *ale.Flow, protocol uint8, to netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
	in := fwps.Incoming{ProcessID: p.opts.ProcessID, AppID: p.opts.AppID, Protocol: protocol, Local: unspecified(to)}
	socket := p.opts.ALE.NewSocket(in)
	defer socket.Close()
	if len(flow.Records) > 0 {
		sealed, err := p.opts.ALE.Seal(flow.Records)
		if err != nil {
			return nil, err
		}
		records, err := p.opts.ALE.Open(sealed)
		if err != nil {
			return nil, err
		}
		socket.SetRecords(records)
	}
	var d net.Dialer
	if protocol == fwps.ProtocolUDP {
		at, _, _, err := socket.SendTo(ctx, to)
		if err != nil {
			return nil, err
		}
		conn, err := d.DialContext(ctx, "udp", at.String())
		if err != nil {
			return nil, err
		}
		return exchange(ctx, conn, q)
	}
	var conn net.Conn
	up, err := socket.Connect(ctx, to, func(ctx context.Context, at ale.Target) (_ netip.AddrPort, err error) {
		if conn, err = d.DialContext(ctx, "tcp", at.Remote.String()); err != nil {
			return netip.AddrPort{}, err
		}
		return conn.LocalAddr().(*net.TCPAddr).AddrPort(), nil
	})
	if err != nil {
		return nil, err
	}
	defer up.Close()
	return exchange(ctx, conn, q)
}

// exchange asks on a connection, which it closes; it lasts no longer than ctx. The number of
// the query is not the program's, who could tell it to somebody who forges answers. What has
// another number anybody can send: it does not end what the resolver may answer yet.
func exchange(ctx context.Context, conn net.Conn, q *dns.Msg) (*dns.Msg, error) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	asked := *q
	asked.Id = dns.Id()
	resolver := dns.Conn{Conn: conn, UDPSize: dns.MaxMsgSize}
	if err := resolver.WriteMsg(&asked); err != nil {
		return nil, err
	}
	for {
		r, err := resolver.ReadMsg()
		if r == nil && err == dns.ErrShortRead || r != nil && r.Id != asked.Id { // It has its number also where the rest cannot be read.
			continue
		}
		if err != nil {
			return nil, err
		}
		r.Id = q.Id
		return r, nil
	}
}

func unspecified(like netip.AddrPort) netip.AddrPort {
	if like.Addr().Is4() {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
}

// SystemResolvers are those that the system has configured, whose answers nobody
// who runs a program chooses.
func SystemResolvers(file string) []netip.AddrPort {
	c, err := dns.ClientConfigFromFile(file)
	if err != nil {
		return nil
	}
	const port = 53 // The file has no other.
	var addrs []netip.AddrPort
	for _, s := range c.Servers {
		if a, err := netip.ParseAddr(s); err == nil {
			addrs = append(addrs, netip.AddrPortFrom(a.Unmap(), port))
		}
	}
	return addrs
}
