package wsk

import (
	"sync"
	"sync/atomic"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A Client is a client of the provider, WSK_CLIENT. Its methods are
// WSK_PROVIDER_DISPATCH. It is valid while its NPI is captured.
type Client struct {
	provider *Provider

	mu      sync.Mutex
	changed sync.Cond // on mu
	calls   int
	sockets map[*Socket]struct{}

	security map[SecurityDescriptor]struct{}
	lastSD   SecurityDescriptor
	tracer   atomic.Pointer[tracer]
	static   uint32 // events of WSK_SET_STATIC_EVENT_CALLBACKS
}

func newClient(p *Provider) *Client {
	c := &Client{provider: p, sockets: map[*Socket]struct{}{}, security: map[SecurityDescriptor]struct{}{}}
	c.changed.L = &c.mu
	return c
}

func (c *Client) wake() {
	c.mu.Lock()
	c.changed.Broadcast()
	c.mu.Unlock()
}

// drain waits until nothing of the client is left and released holds too.
func (c *Client) drain(released func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.calls > 0 || len(c.sockets) > 0 || !released() {
		if released() {
			c.leakedSockets()
		}
		c.changed.Wait()
	}
}

// enter begins a call of the client's own.
func (c *Client) enter(irp *IRP) (call, ntstatus.Status) {
	if st := irp.take(c); st != ntstatus.Success {
		return call{}, st
	}
	c.mu.Lock()
	c.calls++
	c.mu.Unlock()
	return call{c, c, irp}, ntstatus.Success
}

func (c *Client) leave() {
	c.mu.Lock()
	c.calls--
	c.changed.Broadcast()
	c.mu.Unlock()
}

func (c *Client) add(s *Socket) {
	c.mu.Lock()
	c.sockets[s] = struct{}{}
	c.mu.Unlock()
}

func (c *Client) remove(s *Socket) {
	c.mu.Lock()
	delete(c.sockets, s)
	c.changed.Broadcast()
	c.mu.Unlock()
}

// Socket is WskSocket. The IRP's Socket is the new one; WSK owns it until
// CloseSocket (WSK-CAT-06). A nil owner is the current process. dispatch is the
// client's table for the category, nil for a basic socket or no events.
func (c *Client) Socket(family AddressFamily, typ SocketType, protocol Protocol, flags Category,
	socketContext any, dispatch Dispatch, owner *Process, sd SecurityDescriptor, irp *IRP) (st ntstatus.Status) {
	if t := c.tracer.Load(); t != nil {
		defer t.call(irp, &st, "WskSocket", "family %d, type %d, protocol %d, %v", family, typ, protocol, flags)
	}
	k, st := c.enter(irp)
	if st != ntstatus.Success {
		return st
	}
	if st := c.check(family, typ, protocol, flags, socketContext, dispatch, sd); st != ntstatus.Success {
		return k.done(st, 0)
	}
	s := newSocket(c, family, flags, owner)
	s.opts.security = sd
	if flags != BasicSocket {
		s.enlist()
	}
	s.attach(socketContext, dispatch)
	irp.setSocket(s)
	return k.done(ntstatus.Success, 0)
}

func (c *Client) check(family AddressFamily, typ SocketType, protocol Protocol, flags Category,
	socketContext any, dispatch Dispatch, sd SecurityDescriptor) ntstatus.Status {
	t, known := categories[flags]
	switch {
	case !known:
		return ntstatus.InvalidParameter // WSK-CAT-04
	case !supported(family, typ, protocol):
		return ntstatus.ProtocolNotSupported // WSK-SOCK-02
	case t.typ != 0 && t.typ != typ:
		return ntstatus.InvalidParameter
	case flags == BasicSocket && (socketContext != nil || dispatch != nil):
		return ntstatus.InvalidParameter // WSK-CAT-02
	case dispatch != nil && dispatch.category() != flags:
		return ntstatus.InvalidParameter
	case sd != 0 && !c.cached(sd):
		return ntstatus.InvalidParameter // WSK-SOCK-03
	}
	return ntstatus.Success
}
