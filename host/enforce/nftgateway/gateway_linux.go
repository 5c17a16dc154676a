package nftgateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/internal/carry"
	"github.com/calloutd/calloutd/host/enforce/internal/unreachable"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/loglimit"
)

// A Gateway decides connections until it is closed.
type Gateway struct {
	opts        Options
	carrier     carry.Carrier
	lock        io.Closer // held as long as this gateway runs
	listen      []*net.TCPListener
	udp         []*datagrams
	budget      *carry.Budget
	connections *carry.Shares
	counts      carry.Counts
	log         *loglimit.Log // what those who send here can cause
	refused     *unreachable.Teller
	undo        []func() error // takes back what is changed in the kernel, from its end
	ports       ports
	guard       *guard

	mu     sync.Mutex
	site   *site  // that the rules are for
	before string // rules for routes that come before, as told
	closed bool   // the rules are not put back any more
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Start begins to decide what comes in on the interfaces. Rules that an earlier
// gateway of the same name left are replaced at the end, in one step: if Start
// fails they are as they were.
func Start(ctx context.Context, opts Options) (_ *Gateway, err error) {
	if opts.ALE == nil {
		panic("nftgateway: Options.ALE is required")
	}
	if opts.Logf == nil {
		opts.Logf = func(string, ...any) {}
	}
	if opts.OnBlocked == nil {
		opts.OnBlocked = func(enforce.Denial) {}
	}
	if err := opts.check(); err != nil {
		return nil, err
	}
	if err := opts.comeIn(); err != nil {
		return nil, err
	}
	bounds, err := carry.Bound(opts.MaxConnections, opts.MaxDatagramFlows, descriptorsOfAFlow)
	if err != nil {
		return nil, fmt.Errorf("nftgateway: %w", err)
	}
	opts.MaxConnections, opts.MaxDatagramFlows = bounds.Connections, bounds.Flows
	ctx, cancel := context.WithCancel(ctx)
	g := &Gateway{opts: opts, connections: carry.NewShares(opts.MaxConnections), log: loglimit.New(opts.Logf), cancel: cancel, refused: unreachable.New(opts.Logf), carrier: carry.Carrier{ALE: opts.ALE, OnBlocked: opts.OnBlocked, Handoff: opts.Handoff},
		budget: carry.NewBudget(opts.MaxDatagramBytes, opts.MaxDatagramFlows, func(format string, args ...any) { opts.Logf("nftgateway: "+format, args...) })}
	g.carrier.Counts = &g.counts
	g.carrier.OnTimeout = func(in *fwps.Incoming, err error) {
		g.log.Printf("nftgateway: a connection from %s to %s ends, as nobody answers: %v", in.Local, in.Remote, err)
	}
	if g.lock, err = alone(&opts); err != nil {
		cancel()
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(supported(err), g.Close())
		}
	}()
	if g.ports, err = g.serve(ctx); err != nil {
		return nil, err
	}
	if opts.Transparent {
		if g.undo, err = addRoutes(opts.mark()); err != nil {
			return nil, err
		}
	}
	if err := g.takeOver(ctx); err != nil {
		return nil, err
	}
	g.watchTracking(ctx)
	g.undo = []func() error{func() error { return removeRoutes(opts.mark()) }, func() error { return uninstall(&opts) }} // What an earlier one left, too.
	return g, nil
}

// takeOver puts the rules in force, and keeps them there.
func (g *Gateway) takeOver(ctx context.Context) (err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	// What changes is followed as soon as nobody has the lock: also until one that does not start is closed.
	defer func() { g.closed = err != nil }()
	if err := g.watch(ctx); err != nil { // It follows what changes from now on.
		return err
	}
	if g.site, err = g.opts.look(&site{bridges: g.bridges()}); err != nil {
		return err
	}
	mine, err := turn(ctx)
	if err != nil {
		return err
	}
	defer mine.Close()
	if err := g.opts.free(); err != nil {
		return err
	}
	if err := g.followRoutes(g.site.names); err != nil {
		return err
	}
	if g.guard, err = newGuard(&g.opts, g.site); err != nil { // Before the rules, which stay as they were if it fails.
		return err
	}
	if err := install(&g.opts, g.ports, g.site); err != nil {
		return err
	}
	if g.guard.earlier {
		return g.guard.renew()
	}
	return nil
}

// supported says what is missing when the kernel refused.
func supported(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return &enforce.UnsupportedError{Name: "a gateway of this user", Why: err.Error() + ": " + enforce.MoreRights("CAP_NET_ADMIN")}
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.ENOENT):
		return &enforce.UnsupportedError{Name: "nftables", MinimumKernel: "5.12", Why: err.Error() + ": it needs " + remedyKernel}
	}
	return err
}

// serve listens for the connections that the rules send. A system without IPv6
// has one listener; there is nothing to send to the other.
func (g *Gateway) serve(ctx context.Context) (p ports, err error) {
	p.run = "run " + rand.Text()
	lc := net.ListenConfig{}
	if g.opts.Transparent {
		lc.Control = transparent
	}
	lc.SetMultipathTCP(false) // It knows no original destination.
	for _, family := range []byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
		digit := map[byte]string{unix.NFPROTO_IPV4: "4", unix.NFPROTO_IPV6: "6"}[family]
		l, err := lc.Listen(ctx, "tcp"+digit, ":0")
		if err == nil {
			g.listen = append(g.listen, l.(*net.TCPListener))
			*p.tcp.of(family) = l.Addr().(*net.TCPAddr).AddrPort().Port()
			g.wg.Go(func() { g.accept(ctx, l.(*net.TCPListener)) })
			if g.opts.Transparent { // What is translated no longer says where a datagram was going.
				*p.udp.of(family), err = g.serveDatagrams(ctx, "udp"+digit)
			}
		}
		if err != nil && family == unix.NFPROTO_IPV4 {
			return p, fmt.Errorf("nftgateway: %w", err)
		}
		if err != nil {
			g.opts.Logf("nftgateway: no IPv6: %v", err)
		}
	}
	return p, nil
}

// transparent lets a listener have the connections to addresses of others.
func transparent(network, _ string, c syscall.RawConn) error {
	level, option := unix.SOL_IP, unix.IP_TRANSPARENT
	if strings.HasSuffix(network, "6") {
		level, option = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
	}
	var err error
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) }); e != nil {
		return e
	}
	return os.NewSyscallError("setsockopt IP_TRANSPARENT", err)
}

func (g *Gateway) accept(ctx context.Context, l *net.TCPListener) {
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	carry.Accept(ctx, l, func(err error) { g.log.Printf("nftgateway: %v", err) }, func(c *net.TCPConn) {
		host := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		place := carry.Host(host)
		if !g.connections.Take(place) {
			g.counts.TooMany()
			g.log.Printf("nftgateway: a connection from %s is reset: there are as many as may be (%d), or as many of that host as are left for others", host, g.opts.MaxConnections)
			carry.Reset(c)
			return
		}
		g.wg.Go(func() {
			defer g.connections.Leave(place)
			g.answer(ctx, c, port)
		})
	})
}

// answer decides one connection and carries it. One that the rules did not send
// was meant for the port itself, where nothing is.
func (g *Gateway) answer(ctx context.Context, c *net.TCPConn, port uint16) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	to, err := g.wanted(c)
	here := c.LocalAddr().(*net.TCPAddr).AddrPort()
	if err != nil || to == plain(here) && to.Port() == port && ours(to.Addr()) {
		if carry.Established(c) { // Else connection tracking may have forgotten it.
			g.log.Printf("nftgateway: connection from %s to %s was not sent here by the rules", c.RemoteAddr(), here)
		}
		carry.Reset(c)
		return
	}
	g.carrier.Carry(ctx, c, fwps.Incoming{Protocol: fwps.ProtocolTCP, Local: plain(c.RemoteAddr().(*net.TCPAddr).AddrPort()), Remote: to})
}

// ours reports whether an address is this system's.
func ours(a netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return true // Refuse rather than carry to ourselves.
	}
	for _, addr := range addrs {
		if n, ok := addr.(*net.IPNet); ok {
			if own, ok := netip.AddrFromSlice(n.IP); ok && own.Unmap() == a {
				return true
			}
		}
	}
	return a.IsLoopback()
}

// wanted is where a connection was going.
func (g *Gateway) wanted(c *net.TCPConn) (netip.AddrPort, error) {
	here := plain(c.LocalAddr().(*net.TCPAddr).AddrPort())
	if g.opts.Transparent {
		return here, nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	var to netip.AddrPort
	if e := raw.Control(func(fd uintptr) { to, err = originalDestination(int(fd), here.Addr().Is4()) }); e != nil {
		return to, e
	}
	return to, err
}

func plain(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// Datagrams are the figures of those that it carries.
func (g *Gateway) Datagrams() enforce.DatagramStats { return g.budget.Stats() }

// Connections are the figures of those of TCP, and of what it refused of UDP.
func (g *Gateway) Connections() enforce.ConnectionStats { return g.counts.Stats(g.connections) }

// State is what there is of it in the kernel.
func (g *Gateway) State() State {
	g.mu.Lock()
	defer g.mu.Unlock()
	return State{Table: g.opts.tableName(), Interfaces: slices.Clone(g.site.names), Transparent: g.opts.Transparent, Rules: g.inForce(), Guard: g.guard.inForce()}
}

// Close removes the rules and ends the connections.
func (g *Gateway) Close() error {
	var errs []error
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	for _, undo := range slices.Backward(g.undo) {
		errs = append(errs, undo())
	}
	if g.guard != nil {
		errs = append(errs, g.guard.close())
	}
	g.cancel()
	for _, l := range g.listen {
		errs = append(errs, l.Close())
	}
	for _, d := range g.udp {
		errs = append(errs, d.conn.Close())
	}
	g.wg.Wait()
	g.log.Close()
	return errors.Join(append(errs, g.lock.Close())...)
}

// Remove removes what a gateway that died has left.
func Remove(name string) error {
	o := Options{Name: name, Interfaces: []string{"any"}}
	if err := o.check(); err != nil {
		return err
	}
	lock, err := alone(&o)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err = uninstall(&o); errors.Is(err, unix.EPERM) {
		return supported(err) // The routes would be refused, too.
	}
	return errors.Join(err, removeGuard(&o), removeRoutes(o.mark()))
}
