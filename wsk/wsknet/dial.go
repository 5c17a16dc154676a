package wsknet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A Dialer connects.
type Dialer struct {
	Client *wsk.Client // Required.
	// Control runs before the socket is bound, as that of net.Dialer does. Its
	// RawConn takes redirect records; winsock.Control sets them. Optional.
	Control func(network, address string, c syscall.RawConn) error
}

// DialContext connects to a numeric address. The networks are tcp, tcp4, tcp6.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("wsk: dial %s: %w", network, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("wsk: dial %s %s: %w", network, addr, err)
	}
	s, err := open(ctx, d.Client, to.Addr(), wsk.ConnectionSocket)
	if err != nil {
		return nil, err
	}
	if err := d.connect(ctx, s, network, to); err != nil {
		shut(s)
		return nil, err
	}
	return newConn(context.Background(), s), nil
}

func (d *Dialer) connect(ctx context.Context, s *wsk.Socket, network string, to netip.AddrPort) error {
	if d.Control != nil {
		if err := d.Control(network, to.String(), &rawConn{s}); err != nil {
			return err
		}
	}
	if err := set(ctx, s, "keep alive", wsk.SolSocket, wsk.SOKeepAlive, 1); err != nil {
		return err
	}
	from := netip.AddrPortFrom(wildcard(to), 0)
	if _, err := do(ctx, "bind", func(p *wsk.IRP) ntstatus.Status { return s.Bind(from, 0, p) }); err != nil {
		return err
	}
	_, err := do(ctx, "connect", func(p *wsk.IRP) ntstatus.Status { return s.Connect(to, 0, p) })
	return err
}

func wildcard(to netip.AddrPort) netip.Addr {
	if to.Addr().Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// A rawConn is a socket that is not connected yet. It has no descriptor to show:
// what may be done with it are its own methods.
type rawConn struct{ s *wsk.Socket }

// SetRedirectRecords sets the records that the connection will have.
func (c *rawConn) SetRedirectRecords(ctx context.Context, sealed []byte) error {
	_, err := do(ctx, "set redirect records", func(p *wsk.IRP) ntstatus.Status {
		return c.s.ControlSocket(wsk.Ioctl, wsk.SIOSetWFPConnectionRedirectRecords, 0, sealed, nil, nil, p)
	})
	return err
}

func (c *rawConn) Control(func(uintptr)) error    { return errors.ErrUnsupported }
func (c *rawConn) Read(func(uintptr) bool) error  { return errors.ErrUnsupported }
func (c *rawConn) Write(func(uintptr) bool) error { return errors.ErrUnsupported }
