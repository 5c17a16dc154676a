package wsk

import (
	"sync"
	"sync/atomic"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A Client is a client of the provider, WSK_CLIENT. Its methods are
// WSK_PROVIDER_DISPATCH. It is valid while its NPI is captured; after that its calls
// end with STATUS_DEVICE_NOT_READY.
type Client struct {
	provider *Provider

	mu       sync.Mutex
	changed  sync.Cond // on mu
	captures int
	calls    int
	sockets  map[*Socket]struct{}

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

func (c *Client) capture() {
	c.mu.Lock()
	c.captures++
	c.mu.Unlock()
}

func (c *Client) release() {
	c.mu.Lock()
	captured := c.captures > 0
	if captured {
		c.captures--
		c.changed.Broadcast()
	}
	c.mu.Unlock()
	c.verify(captured, "releases the provider once too often")
}

// usable reports whether the provider is captured. What is done without is
// nothing that deregistering would wait for.
func (c *Client) usable() bool {
	c.mu.Lock()
	captured := c.captures > 0
	c.mu.Unlock()
	c.verify(captured, "uses the provider that it has released")
	return captured
}

// verify reports what a client does that has not captured the provider.
func (c *Client) verify(captured bool, what string) {
	if v := c.provider.opts.Debug.Verifier; v != nil && !captured {
		v.report(Violation{Rule: "WSK-REG-04", What: what, At: callSite()})
	}
}

// drain waits until nothing of the client is left.
func (c *Client) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.calls > 0 || len(c.sockets) > 0 || c.captures > 0 {
		if c.captures == 0 {
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
	if c.provider == nil { // No registration made it.
		irp.complete(ntstatus.InvalidParameter, 0)
		return call{}, ntstatus.InvalidParameter
	}
	c.mu.Lock()
	c.calls++
	c.mu.Unlock()
	k := call{c, c, irp}
	if !c.usable() {
		return call{}, k.done(ntstatus.DeviceNotReady, 0)
	}
	return k, ntstatus.Success
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
