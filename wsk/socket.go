package wsk

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/transport"
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
	tuned     struct{ delay, silent bool } // what of opts the connection has
	local     netip.AddrPort               // as bound
	bound     *transport.Socket
	state     state
	role      Category // of a stream socket: ListenSocket or ConnectionSocket
	listener  *listener
	conn      *transport.Conn
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
	denial atomic.Pointer[ale.BlockedError]
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

// Transport is what is under a connected socket, for relays that want the
// kernel to copy; nil while not connected. The Socket still owns it, and calls
// that use the socket's own Send and Receive must not be mixed with it.
func (s *Socket) Transport() *transport.Conn { s.mu.Lock(); defer s.mu.Unlock(); return s.conn }

// Disconnected is for those who use Transport, have read to its end and close the socket
// next: the close is in order and tells the peer that nothing more comes (WSK-CLOSE-02).
func (s *Socket) Disconnected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in.finRead, s.finSent = true, true
}

// Reauthorize is what Send and Receive do first, for those who use Transport: if
// the policy changed, the layer that let the connection go on is asked again, and
// one that does not resets it (ALE-LAY-12). It is cheap. The end of ctx, which nothing else
// is, ends the asking with STATUS_CANCELLED.
func (s *Socket) Reauthorize(ctx context.Context) ntstatus.Status { return s.authorized(ctx) }
