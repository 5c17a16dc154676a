// Package wsk is Winsock Kernel over real TCP sockets: sockets, IRPs and the
// three WFP ioctls by which a proxy asks whom a redirected connection was for.
//
// How C becomes Go: the Wsk prefix is the package; version digits and
// underscores go; a pointer with its size is a slice; the C name stands in the
// doc comment. Every call takes an IRP, which is completed on every path.
package wsk

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// Options describe a client.
type Options struct {
	ALE       *ale.Enforcer // Required.
	ProcessID uint32        // Recommended: the process the sockets belong to.
	AppID     string        // Recommended: its program.
	// MaySetRecords tells whether the client may set redirect records, the
	// administrator's right of AMB-06. Optional: nil means it may.
	MaySetRecords func() bool
}

// A Client is a registration with its captured NPI.
type Client struct {
	opts    Options
	sockets sync.WaitGroup
}

// Register is WskRegister with WskCaptureProviderNPI.
func Register(o Options) (*Client, ntstatus.Status) {
	if o.ALE == nil {
		return nil, ntstatus.InvalidParameter
	}
	return &Client{opts: o}, ntstatus.Success
}

// Deregister is WskDeregister: it waits until every socket is closed (WSK-REG-06).
func (c *Client) Deregister() { c.sockets.Wait() }

// Category is the Flags argument of WskSocket.
type Category uint32

// The categories for TCP (WSK-CAT-01).
const (
	BasicSocket      Category = 0
	ListenSocket     Category = 1
	ConnectionSocket Category = 2
)

// A Socket is a WSK_SOCKET.
type Socket struct {
	client *Client
	cat    Category
	ctx    context.Context
	cancel context.CancelFunc
	busy   sync.WaitGroup // pending IRPs

	mu      sync.Mutex
	closed  bool
	local   netip.AddrPort // as bound
	ln      *net.TCPListener
	conn    *net.TCPConn
	flow    *ale.Flow
	records redirect.Records // by SIO_SET
}

// Socket is WskSocket; the IRP's Socket is the new one.
func (c *Client) Socket(cat Category, irp *IRP) ntstatus.Status {
	if s := irp.begin(); s != ntstatus.Success {
		return s
	}
	if cat > ConnectionSocket {
		return irp.complete(ntstatus.InvalidParameter, 0) // WSK-CAT-04
	}
	irp.socket = c.newSocket(cat)
	return irp.complete(ntstatus.Success, 0)
}

func (c *Client) newSocket(cat Category) *Socket {
	s := &Socket{client: c, cat: cat}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	c.sockets.Add(1)
	return s
}

// refuse completes the IRP when the socket cannot take the call.
func (s *Socket) refuse(cat Category) ntstatus.Status {
	switch {
	case s.closed:
		return ntstatus.FileForcedClosed
	case s.cat != cat:
		return ntstatus.InvalidDeviceRequest
	}
	return ntstatus.Success
}

// start begins a call on a socket of a category.
func (s *Socket) start(cat Category, irp *IRP) ntstatus.Status {
	if st := irp.begin(); st != ntstatus.Success {
		return st
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.refuse(cat); st != ntstatus.Success {
		return irp.complete(st, 0)
	}
	return ntstatus.Success
}

func (s *Socket) pend(irp *IRP, cancel func(), op func() (ntstatus.Status, int)) ntstatus.Status {
	s.busy.Add(1)
	return irp.pend(cancel, func() (ntstatus.Status, int) { defer s.busy.Done(); return op() })
}

// Bind is WskBind. A listen socket listens from then on (WSK-CAT-03).
func (s *Socket) Bind(local netip.AddrPort, irp *IRP) ntstatus.Status {
	if st := irp.begin(); st != ntstatus.Success {
		return st
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return irp.complete(ntstatus.FileForcedClosed, 0)
	case s.cat == BasicSocket || s.local.IsValid() || !local.IsValid():
		return irp.complete(ntstatus.InvalidParameter, 0)
	}
	if s.cat == ListenSocket {
		ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(local))
		if err != nil {
			return irp.complete(status(err), 0)
		}
		s.ln, local = ln, ln.Addr().(*net.TCPAddr).AddrPort()
	}
	s.local = local
	return irp.complete(ntstatus.Success, 0)
}

// Accept is WskAccept; the IRP's Socket is the accepted one. A connection that
// the policy blocks at AUTH_RECV_ACCEPT is closed and the next one waited for.
func (s *Socket) Accept(irp *IRP) ntstatus.Status {
	if st := s.start(ListenSocket, irp); st != ntstatus.Success {
		return st
	}
	if s.ln == nil {
		return irp.complete(ntstatus.InvalidDeviceState, 0)
	}
	return s.pend(irp, func() { s.ln.Close() }, func() (ntstatus.Status, int) {
		for {
			conn, err := s.ln.AcceptTCP()
			if err != nil {
				return status(err), 0
			}
			in := s.client.incoming()
			in.Local, in.Remote = conn.LocalAddr().(*net.TCPAddr).AddrPort(), conn.RemoteAddr().(*net.TCPAddr).AddrPort()
			flow, err := s.client.opts.ALE.Accept(s.ctx, in)
			if err != nil {
				conn.Close()
				continue
			}
			a := s.client.newSocket(ConnectionSocket)
			a.conn, a.flow, a.local = conn, flow, in.Local
			irp.mu.Lock()
			irp.socket = a
			irp.mu.Unlock()
			return ntstatus.Success, 0
		}
	})
}

func (c *Client) incoming() fwps.Incoming {
	return fwps.Incoming{Protocol: fwps.ProtocolTCP, ProcessID: c.opts.ProcessID, AppID: c.opts.AppID}
}

// Connect is WskConnect, through the ALE layers. The socket must be bound.
func (s *Socket) Connect(remote netip.AddrPort, irp *IRP) ntstatus.Status {
	if st := s.start(ConnectionSocket, irp); st != ntstatus.Success {
		return st
	}
	if !s.local.IsValid() || s.conn != nil {
		return irp.complete(ntstatus.InvalidDeviceState, 0) // WSK-CONN-01
	}
	return s.pend(irp, s.cancel, func() (ntstatus.Status, int) {
		e := &endpoint{s: s, remote: remote}
		flow, err := s.client.opts.ALE.Connect(s.ctx, e)
		if err != nil {
			return status(err), 0
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.conn, s.flow = e.conn, flow
		return ntstatus.Success, 0
	})
}

type endpoint struct {
	s      *Socket
	remote netip.AddrPort
	conn   *net.TCPConn
}

func (e *endpoint) Incoming() fwps.Incoming {
	in := e.s.client.incoming()
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	in.Local, in.Remote, in.Records = e.s.local, e.remote, e.s.records
	return in
}

func (e *endpoint) Connect(ctx context.Context, to netip.AddrPort) (netip.AddrPort, error) {
	d := net.Dialer{}
	if l := e.s.local; !l.Addr().IsUnspecified() || l.Port() != 0 {
		d.LocalAddr = net.TCPAddrFromAddrPort(l)
	}
	c, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return netip.AddrPort{}, err
	}
	e.conn = c.(*net.TCPConn)
	return c.LocalAddr().(*net.TCPAddr).AddrPort(), nil
}

// Send is WskSend: it completes when all of b was taken.
func (s *Socket) Send(b []byte, irp *IRP) ntstatus.Status {
	return s.transfer(irp, func(c *net.TCPConn) (int, error) { return c.Write(b) })
}

// Receive is WskReceive: zero bytes with success is the peer's close (WSK-RECV-01).
func (s *Socket) Receive(b []byte, irp *IRP) ntstatus.Status {
	return s.transfer(irp, func(c *net.TCPConn) (int, error) {
		n, err := c.Read(b)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return n, err
	})
}

func (s *Socket) transfer(irp *IRP, op func(*net.TCPConn) (int, error)) ntstatus.Status {
	if st := s.start(ConnectionSocket, irp); st != ntstatus.Success {
		return st
	}
	c := s.TCPConn()
	if c == nil {
		return irp.complete(ntstatus.InvalidDeviceState, 0)
	}
	return s.pend(irp, func() { c.Close() }, func() (ntstatus.Status, int) {
		n, err := op(c)
		return status(err), n
	})
}

// Disconnect is WskDisconnect: graceful, or abortive with a reset.
func (s *Socket) Disconnect(abortive bool, irp *IRP) ntstatus.Status {
	return s.transfer(irp, func(c *net.TCPConn) (int, error) {
		if !abortive {
			return 0, c.CloseWrite()
		}
		if err := c.SetLinger(0); err != nil {
			return 0, err
		}
		return 0, c.Close()
	})
}

// LocalAddress is WskGetLocalAddress, not valid for an unbound socket.
func (s *Socket) LocalAddress() (netip.AddrPort, ntstatus.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.local.IsValid() {
		return netip.AddrPort{}, ntstatus.InvalidDeviceState // WSK-ADDR-01
	}
	if s.conn != nil {
		return s.conn.LocalAddr().(*net.TCPAddr).AddrPort(), ntstatus.Success
	}
	return s.local, ntstatus.Success
}

// TCPConn is the transport under a connected socket, for relays that want the
// kernel to copy; nil while not connected. The Socket still owns it.
func (s *Socket) TCPConn() *net.TCPConn { s.mu.Lock(); defer s.mu.Unlock(); return s.conn }

// CloseSocket is WskCloseSocket: pending IRPs complete before the close does
// (WSK-CLOSE-03).
func (s *Socket) CloseSocket(irp *IRP) ntstatus.Status {
	if st := irp.begin(); st != ntstatus.Success {
		return st
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return irp.complete(ntstatus.FileForcedClosed, 0)
	}
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	if s.ln != nil {
		s.ln.Close()
	}
	if c := s.TCPConn(); c != nil {
		c.Close()
	}
	return irp.pend(nil, func() (ntstatus.Status, int) {
		s.busy.Wait()
		if c := s.TCPConn(); c != nil { // A connect may have ended meanwhile.
			c.Close()
		}
		if s.flow != nil {
			s.flow.Close()
		}
		s.client.opts.ALE.Release(s.records)
		s.client.sockets.Done()
		return ntstatus.Success, 0
	})
}

// status is the NTSTATUS of what the transport or the policy answered.
func status(err error) ntstatus.Status {
	var blocked *ale.BlockedError
	switch {
	case err == nil:
		return ntstatus.Success
	case errors.As(err, &blocked):
		return ntstatus.AccessDenied
	case errors.Is(err, net.ErrClosed), errors.Is(err, context.Canceled):
		return ntstatus.Cancelled
	case errors.Is(err, syscall.ECONNREFUSED):
		return ntstatus.ConnectionRefused
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return ntstatus.ConnectionReset
	case errors.Is(err, syscall.EADDRINUSE):
		return ntstatus.AddressAlreadyExists
	}
	return ntstatus.Unsuccessful
}
