package wsknet

import (
	"bytes"
	"context"
	"net/netip"
	"sync"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// answers are what queries are answered in.
var answers = sync.Pool{New: func() any { return new([1024]byte) }} // RED-Q-09

// query asks twice: once for the size when the first buffer was too small.
func (c *Conn) query(ctx context.Context, op string, code uint32) ([]byte, error) {
	first := answers.Get().(*[1024]byte)
	defer answers.Put(first)
	for buf := first[:]; ; {
		r, err := c.control(ctx, op, wsk.Ioctl, code, 0, buf)
		if r.Status == ntstatus.BufferTooSmall && r.Information > len(buf) {
			buf = make([]byte, r.Information)
			continue
		}
		if err != nil {
			return nil, err
		}
		return bytes.Clone(buf[:r.Information]), nil
	}
}

// control runs a query on the socket unless the connection is closed.
func (c *Conn) control(ctx context.Context, op string, typ wsk.ControlSocketType, code, level uint32, buf []byte) (r result, err error) {
	err = c.use(func() (err error) {
		r, err = do(ctx, op, func(p *wsk.IRP) ntstatus.Status {
			return c.s.ControlSocket(typ, code, level, nil, buf, nil, p)
		})
		return err
	})
	return r, err
}

// RedirectRecords are the sealed records of an accepted connection, for the proxy's own
// connection that continues it: winsock.Control sets them. An error that is
// fs.ErrNotExist says that it was not redirected here (RED-Q-05), net.ErrClosed that the
// connection is closed. The bytes are the caller's.
func (c *Conn) RedirectRecords(ctx context.Context) ([]byte, error) {
	return c.query(ctx, "query redirect records", wsk.SIOQueryWFPConnectionRedirectRecords)
}

// RedirectContext is what the callout left for the proxy. The errors are those of
// RedirectRecords, and fs.ErrNotExist if it left nothing. The bytes are the caller's.
func (c *Conn) RedirectContext(ctx context.Context) ([]byte, error) {
	return c.query(ctx, "query redirect context", wsk.SIOQueryWFPConnectionRedirectContext)
}

// OriginalDestination is where a redirected connection was to go. The errors are those
// of RedirectRecords.
func (c *Conn) OriginalDestination(ctx context.Context) (netip.AddrPort, error) {
	const op = "original destination"
	buf := make([]byte, 128) // SOCKADDR_STORAGE
	r, err := c.control(ctx, op, wsk.GetOption, wsk.SOOriginalDst, wsk.SolSocket, buf)
	if err != nil {
		return netip.AddrPort{}, err
	}
	a, ok := wsk.ParseSockaddr(buf[:r.Information])
	if !ok {
		return netip.AddrPort{}, &OpError{Op: op, Status: ntstatus.InvalidAddressComponent}
	}
	return a, nil
}
