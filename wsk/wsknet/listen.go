package wsknet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A Listener is a listen socket.
type Listener struct {
	s     *wsk.Socket
	addr  netip.AddrPort
	conns context.Context // of what it accepted
	abort context.CancelFunc

	lingering *tally // of what it accepted

	mu     sync.RWMutex // a close goes with no other call (WSK-CLOSE-01)
	closed bool
}

// Listen listens on a numeric address. Port 0 lets the system choose: Addr says which.
func Listen(ctx context.Context, client *wsk.Client, addr string) (*Listener, error) {
	if client == nil {
		return nil, fmt.Errorf("wsk: listen: %w", errNoClient)
	}
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("wsk: listen %q: expected an address and a port, such as 127.0.0.1:0: %w", addr, err)
	}
	ctx, stop := whileOpen(ctx, client)
	defer stop()
	r := newRequest()
	s, err := r.open(ctx, client, at.Addr(), wsk.ListenSocket)
	if err != nil {
		return nil, err
	}
	l := &Listener{s: s, lingering: newTally()}
	l.conns, l.abort = context.WithCancel(context.Background())
	if _, err = r.do(ctx, "bind", func(p *wsk.IRP) ntstatus.Status { return s.Bind(at, 0, p) }); err == nil {
		_, err = r.do(ctx, "local address", func(p *wsk.IRP) ntstatus.Status { return s.GetLocalAddress(&l.addr, p) })
	}
	if err != nil {
		r.shut(s)
		return nil, explain(s, err)
	}
	r.free()
	return l, nil
}

// Accept waits for a connection; after Close it reports net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	l.mu.RLock()
	if l.closed || l.s == nil { // Listen did not make it.
		l.mu.RUnlock()
		return nil, net.ErrClosed
	}
	r := newRequest()
	r.start(func(p *wsk.IRP) ntstatus.Status { return l.s.Accept(0, nil, nil, nil, nil, p) })
	l.mu.RUnlock()
	accepted, err := r.wait(context.Background(), "accept")
	if err != nil {
		r.free()
		if accepted.Status == ntstatus.Cancelled {
			err = net.ErrClosed
		}
		return nil, err
	}
	// A connection that is gone already says so when it is used.
	_ = r.set(context.Background(), accepted.socket, "keep alive", wsk.SolSocket, wsk.SOKeepAlive, 1)
	c := newConn(l.conns, accepted.socket, r)
	c.lingering = l.lingering
	return c, nil
}

// Close ends the listener. Its connections go on.
func (l *Listener) Close() error {
	l.mu.Lock()
	again := l.closed || l.s == nil
	l.closed = true
	l.mu.Unlock()
	if again {
		return nil
	}
	return newRequest().shut(l.s)
}

// Abort resets the connections that were accepted and are closed but still wait
// for their peer to close too.
func (l *Listener) Abort() { l.abort() }

// Wait waits until the connections that were accepted and are closed have been
// closed by their peers too, or have waited for it long enough.
func (l *Listener) Wait() { l.lingering.wait() }

// Addr is where it listens.
func (l *Listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }
