// Package wsknet is Winsock Kernel as net.Conn, net.Listener and a dialer. It
// uses only what wsk exports.
package wsknet

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// An OpError is an operation that ended with a failure.
type OpError struct {
	Op     string
	Status ntstatus.Status
}

func (e *OpError) Error() string { return "wsk: " + e.Op + ": " + e.Status.Error() }
func (e *OpError) Unwrap() error { return e.Status }

// do runs one call with an IRP of its own and waits for its completion.
func do(ctx context.Context, op string, call func(*wsk.IRP) ntstatus.Status) (*wsk.IRP, error) {
	irp, done := wsk.AllocateIRP(), make(chan struct{})
	irp.SetCompletionRoutine(func(*wsk.IRP, any) ntstatus.Status {
		close(done)
		return ntstatus.MoreProcessingRequired
	}, nil, wsk.InvokeAlways)
	call(irp)
	select {
	case <-done:
	case <-ctx.Done():
		irp.Cancel()
		<-done
	}
	if st := irp.IoStatus().Status; !st.Ok() {
		return irp, &OpError{op, st}
	}
	return irp, nil
}

// A Dialer connects.
type Dialer struct {
	Client *wsk.Client // Required.
	// RedirectRecords are set on the socket before it connects, so that the
	// connection stays related to the one they came from. Optional.
	RedirectRecords []byte
}

// DialContext connects to a numeric address.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("wsk: dial %s: %w", network, err)
	}
	irp, err := do(ctx, "socket", func(p *wsk.IRP) ntstatus.Status { return d.Client.Socket(wsk.ConnectionSocket, p) })
	if err != nil {
		return nil, err
	}
	s := irp.Socket()
	c := &Conn{s: s}
	steps := []struct {
		op   string
		call func(*wsk.IRP) ntstatus.Status
	}{
		{"set redirect records", func(p *wsk.IRP) ntstatus.Status {
			return s.Ioctl(wsk.SIOSetWFPConnectionRedirectRecords, d.RedirectRecords, nil, nil, p)
		}},
		{"bind", func(p *wsk.IRP) ntstatus.Status { return s.Bind(netip.AddrPortFrom(wildcard(to), 0), p) }},
		{"connect", func(p *wsk.IRP) ntstatus.Status { return s.Connect(to, p) }},
	}
	if d.RedirectRecords == nil {
		steps = steps[1:]
	}
	for _, st := range steps {
		if _, err := do(ctx, st.op, st.call); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

func wildcard(to netip.AddrPort) netip.Addr {
	if to.Addr().Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// A Listener is a listen socket.
type Listener struct {
	s    *wsk.Socket
	addr netip.AddrPort
	once sync.Once
}

// Listen listens on a numeric address.
func Listen(ctx context.Context, client *wsk.Client, addr string) (*Listener, error) {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("wsk: listen: %w", err)
	}
	irp, err := do(ctx, "socket", func(p *wsk.IRP) ntstatus.Status { return client.Socket(wsk.ListenSocket, p) })
	if err != nil {
		return nil, err
	}
	l := &Listener{s: irp.Socket()}
	if _, err := do(ctx, "bind", func(p *wsk.IRP) ntstatus.Status { return l.s.Bind(at, p) }); err != nil {
		l.Close()
		return nil, err
	}
	l.addr, _ = l.s.LocalAddress()
	return l, nil
}

// Accept waits for a connection; after Close it reports net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	irp, err := do(context.Background(), "accept", l.s.Accept)
	if err != nil {
		if st := irp.IoStatus().Status; st == ntstatus.Cancelled || st == ntstatus.FileForcedClosed {
			return nil, net.ErrClosed
		}
		return nil, err
	}
	return &Conn{s: irp.Socket()}, nil
}

// Close ends the listener.
func (l *Listener) Close() (err error) {
	l.once.Do(func() { _, err = do(context.Background(), "close", l.s.CloseSocket) })
	return err
}

// Addr is where it listens.
func (l *Listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// A Conn is a connected socket.
type Conn struct {
	s    *wsk.Socket
	once sync.Once
}

// query asks twice: once for the size when the first buffer was too small.
func (c *Conn) query(ctx context.Context, op string, code uint32) ([]byte, error) {
	buf := make([]byte, 1024) // RED-Q-09
	for {
		irp, err := do(ctx, op, func(p *wsk.IRP) ntstatus.Status { return c.s.Ioctl(code, nil, buf, nil, p) })
		st := irp.IoStatus()
		if st.Status == ntstatus.BufferTooSmall && st.Information > len(buf) {
			buf = make([]byte, st.Information)
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[:st.Information], nil
	}
}

// RedirectRecords are the sealed records of an accepted connection; an error
// that is fs.ErrNotExist says it was not redirected here.
func (c *Conn) RedirectRecords(ctx context.Context) ([]byte, error) {
	return c.query(ctx, "query redirect records", wsk.SIOQueryWFPConnectionRedirectRecords)
}

// RedirectContext is what the callout left for the proxy.
func (c *Conn) RedirectContext(ctx context.Context) ([]byte, error) {
	return c.query(ctx, "query redirect context", wsk.SIOQueryWFPConnectionRedirectContext)
}

// Close closes the socket. It may be called while others read or write.
func (c *Conn) Close() (err error) {
	c.once.Do(func() { _, err = do(context.Background(), "close", c.s.CloseSocket) })
	return err
}

// The data path uses the transport itself, so that io.Copy can splice.
func (c *Conn) Read(b []byte) (int, error)         { return c.s.TCPConn().Read(b) }
func (c *Conn) Write(b []byte) (int, error)        { return c.s.TCPConn().Write(b) }
func (c *Conn) CloseWrite() error                  { return c.s.TCPConn().CloseWrite() }
func (c *Conn) LocalAddr() net.Addr                { return c.s.TCPConn().LocalAddr() }
func (c *Conn) RemoteAddr() net.Addr               { return c.s.TCPConn().RemoteAddr() }
func (c *Conn) SetDeadline(t time.Time) error      { return c.s.TCPConn().SetDeadline(t) }
func (c *Conn) SetReadDeadline(t time.Time) error  { return c.s.TCPConn().SetReadDeadline(t) }
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.s.TCPConn().SetWriteDeadline(t) }

// ReadFrom lets io.Copy hand both ends to the kernel.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	if o, ok := r.(*Conn); ok {
		r = o.s.TCPConn()
	}
	return c.s.TCPConn().ReadFrom(r)
}
