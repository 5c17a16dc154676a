package wsk

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/wsk/internal/transport"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A Socket is a WSK_SOCKET. Its methods are the entries of all provider
// dispatch tables; those that its category's table has not end with
// STATUS_INVALID_DEVICE_REQUEST.
type Socket struct {
	client   *Client
	category Category
	family   AddressFamily
	owner    *Process
	context  any
	dispatch Dispatch
	accepted bool // the accepting side of a connection: its flow has the records
	ale      *ale.Socket
	ctx      context.Context
	cancel   context.CancelFunc

	send, recv queue
	ctl        queue // of a provider that always pends

	mu      sync.Mutex
	idle    sync.Cond // on mu
	calls   int       // IRPs that were taken and not yet completed
	closing bool
	over    bool // closed; the close may have to be completed yet

	opts      options
	local     netip.AddrPort // as bound
	bound     *transport.Socket
	state     state
	role      Category // of a stream socket: ListenSocket or ConnectionSocket
	listener  *listener
	conn      *net.TCPConn
	finAsked  bool // a graceful disconnect was called
	finSent   bool
	aborted   bool
	inspectID InspectID // of a socket that was accepted conditionally
	in        receiving
	events    events
	madeAt    Site          // for a verifier
	reported  bool          // as leaked
	number    atomic.Uint64 // in a trace
	ideal     int           // the send backlog last told of
	packets   *net.UDPConn  // of a datagram socket

	flow   *ale.Flow
	sealed []byte // of the flow's records, once asked for
	set    []byte // what SIO_SET set, for a datagram socket
	dgram  datagrams
}

type state uint8

const (
	unbound state = iota
	binding
	bound
	connecting
	connected
	listening
)

func newSocket(c *Client, f AddressFamily, cat Category, owner *Process) *Socket {
	if owner == nil {
		owner = &c.provider.opts.Process
	}
	s := &Socket{client: c, category: cat, family: f, owner: owner}
	s.idle.L = &s.mu
	s.recv.background = s.pump
	if cat == DatagramSocket {
		s.recv.background = s.pumpDatagrams
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if c.provider.opts.Debug.Verifier != nil {
		s.madeAt = callSite()
	}
	c.add(s)
	return s
}

// Context is the SocketContext the socket was made or accepted with.
func (s *Socket) Context() any { return s.context }

// Category is what the socket was made as.
func (s *Socket) Category() Category { return s.category }

// enter begins a call. A status that is not success is the call's: the IRP was
// completed, or not taken at all.
func (s *Socket) enter(op operation, irp *IRP) (call, ntstatus.Status) {
	if st := irp.take(s.client); st != ntstatus.Success {
		return call{}, st
	}
	s.mu.Lock()
	if s.closing {
		// Not counted: the socket's end may be waiting for the count already.
		s.mu.Unlock()
		s.misused("WSK-CLOSE-01", "calls on a socket that was closed")
		irp.complete(ntstatus.FileForcedClosed, 0)
		return call{}, ntstatus.FileForcedClosed
	}
	st := s.allows(op)
	s.calls++
	s.mu.Unlock()
	c := call{s, s.client, irp}
	if st != ntstatus.Success {
		return c, c.done(st, 0)
	}
	return c, ntstatus.Success
}

func (s *Socket) allows(op operation) ntstatus.Status {
	o := categories[s.category].ops
	switch s.role {
	case ListenSocket:
		o &^= lostByListening
	case ConnectionSocket:
		o &^= lostByConnecting
	}
	switch {
	case !o.has(op):
		return ntstatus.InvalidDeviceRequest
	case s.aborted && op != opCloseSocket:
		return ntstatus.FileForcedClosed // WSK-RET-04
	}
	return ntstatus.Success
}

func (s *Socket) leave() {
	s.mu.Lock()
	s.calls--
	if s.closing {
		s.idle.Broadcast()
	}
	gone := s.over && s.calls == 0
	s.mu.Unlock()
	if gone { // The close was completed: the client may go too.
		s.client.remove(s)
	}
}

// Bind is WskBind. Port zero is chosen here, a wildcard address when the socket
// connects (WSK-BIND-01). A listen socket listens from then on (WSK-CAT-03).
// flags must be zero.
func (s *Socket) Bind(local netip.AddrPort, flags uint32, irp *IRP) (st ntstatus.Status) {
	if t := s.client.tracer.Load(); t != nil {
		defer t.called(s, irp, &st, "WskBind", "%v, flags %#x", local, flags)
	}
	c, st := s.enter(opBind, irp)
	if st != ntstatus.Success {
		return st
	}
	if flags != 0 || !s.speaks(local.Addr()) {
		return c.done(ntstatus.InvalidParameter, 0)
	}
	if !s.move(unbound, binding) {
		return c.done(ntstatus.InvalidDeviceState, 0)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	return c.pend(cancel, func() (ntstatus.Status, int) {
		defer cancel()
		return s.bind(ctx, local), 0
	})
}

// move changes the state if it is as expected.
func (s *Socket) move(from, to state) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != from {
		return false
	}
	s.state = to
	return true
}

func (s *Socket) bind(ctx context.Context, local netip.AddrPort) ntstatus.Status {
	_, err := s.ale.Bind(ctx, local, func(_ context.Context, want netip.AddrPort) (netip.AddrPort, error) { return s.take(want) })
	if err == nil {
		s.move(binding, bound)
		if s.category == ListenSocket {
			err = s.listen(ctx)
		}
	}
	if err == nil {
		s.kick()
		return ntstatus.Success
	}
	s.mu.Lock()
	s.letGo()
	s.state = unbound
	s.mu.Unlock()
	return ended(ctx, err)
}

// speaks tells whether an address is of the socket's family.
func (s *Socket) speaks(a netip.Addr) bool {
	return a.IsValid() && a.Is4() == (s.family == AFInet)
}

// GetLocalAddress is WskGetLocalAddress, of a bound socket (WSK-ADDR-01). local
// is the caller's until the IRP is completed.
func (s *Socket) GetLocalAddress(local *netip.AddrPort, irp *IRP) (st ntstatus.Status) {
	if t := s.client.tracer.Load(); t != nil {
		defer t.called(s, irp, &st, "WskGetLocalAddress", "")
	}
	return s.address(opGetLocalAddress, local, irp, func() (netip.AddrPort, bool) {
		if s.state == connected {
			return s.as(s.conn.LocalAddr()), true
		}
		return s.local, s.state >= bound
	})
}

// GetRemoteAddress is WskGetRemoteAddress, of a connected socket: its real
// peer, which after a redirection is the proxy (AMB-31).
func (s *Socket) GetRemoteAddress(remote *netip.AddrPort, irp *IRP) (st ntstatus.Status) {
	if t := s.client.tracer.Load(); t != nil {
		defer t.called(s, irp, &st, "WskGetRemoteAddress", "")
	}
	return s.address(opGetRemoteAddress, remote, irp, func() (netip.AddrPort, bool) {
		if s.state != connected {
			return netip.AddrPort{}, false
		}
		return s.as(s.conn.RemoteAddr()), true
	})
}

func (s *Socket) address(op operation, out *netip.AddrPort, irp *IRP, get func() (netip.AddrPort, bool)) ntstatus.Status {
	c, st := s.enter(op, irp)
	if st != ntstatus.Success {
		return st
	}
	if out == nil {
		return c.done(ntstatus.InvalidParameter, 0)
	}
	s.mu.Lock()
	a, ok := get()
	s.mu.Unlock()
	if !ok {
		return c.done(ntstatus.InvalidDeviceState, 0)
	}
	*out = a
	return c.done(ntstatus.Success, 0)
}

// as is an address of package net in the socket's family.
func (s *Socket) as(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return s.inFamily(ap)
}

func (s *Socket) inFamily(ap netip.AddrPort) netip.AddrPort {
	if s.family == AFInet {
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	if ap.Addr().Is4() {
		return netip.AddrPortFrom(netip.AddrFrom16(ap.Addr().As16()), ap.Port())
	}
	return ap
}

// TCPConn is the transport under a connected socket, for relays that want the
// kernel to copy; nil while not connected. The Socket still owns it, and calls
// that use the socket's own Send and Receive must not be mixed with it.
func (s *Socket) TCPConn() *net.TCPConn { s.mu.Lock(); defer s.mu.Unlock(); return s.conn }

// Reauthorize is what Send and Receive do first, for those who use TCPConn: if
// the policy changed, the layer that let the connection go on is asked again, and
// one that does not resets it (ALE-LAY-12). It is cheap.
func (s *Socket) Reauthorize() ntstatus.Status { return s.authorized() }

// CloseSocket is WskCloseSocket. It is legal when no other call executes on the
// socket; IRPs that are pending are cancelled and completed first
// (WSK-CLOSE-01, WSK-CLOSE-03). A connection that is not disconnected both ways
// is reset (WSK-CLOSE-02).
func (s *Socket) CloseSocket(irp *IRP) (st ntstatus.Status) {
	if t := s.client.tracer.Load(); t != nil {
		defer t.called(s, irp, &st, "WskCloseSocket", "")
	}
	c, st := s.enter(opCloseSocket, irp)
	if st != ntstatus.Success {
		return st
	}
	s.mu.Lock()
	twice := s.closing
	s.closing = true
	s.mu.Unlock()
	if twice {
		return c.done(ntstatus.FileForcedClosed, 0)
	}
	return c.pend(nil, func() (ntstatus.Status, int) {
		s.shutdown(1)
		return ntstatus.Success, 0
	})
}

// shutdown ends everything on a closing socket and waits until no more calls
// than its own are left.
func (s *Socket) shutdown(own int) {
	s.cancel()
	s.ctl.stop()
	s.recv.stop()
	s.send.stop() // The last: a send that is cut off aborts the connection.
	s.mu.Lock()
	l := s.listener
	s.mu.Unlock()
	if l != nil {
		l.close()
	}
	s.hangUp()
	s.recv.join()
	s.mu.Lock()
	for s.calls > own {
		s.idle.Wait()
	}
	s.letGo()
	s.mu.Unlock()
	s.hangUp() // A connect may have ended meanwhile.
	s.closeALE()
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
}

// hangUp closes the connection, with a reset unless both sides are done.
func (s *Socket) hangUp() {
	s.mu.Lock()
	conn, sent, read := s.conn, s.finSent, s.in.finRead
	s.mu.Unlock()
	if conn == nil {
		return
	}
	if !sent || !read && !transport.PeerDone(conn) {
		conn.SetLinger(0)
	}
	conn.Close()
}
