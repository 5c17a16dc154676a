package wsknet

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A Dialer connects.
type Dialer struct {
	Client *wsk.Client // Required.
	// RedirectRecords are set on the socket before it connects, so that the
	// connection stays related to the one they came from. Optional.
	RedirectRecords []byte
}

// DialContext connects to a numeric address. The networks are tcp, tcp4, tcp6.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("wsk: dial %s: %w", network, err)
	}
	s, err := open(ctx, d.Client, to.Addr(), wsk.ConnectionSocket)
	if err != nil {
		return nil, err
	}
	if err := d.connect(ctx, s, to); err != nil {
		shut(s)
		return nil, err
	}
	return newConn(context.Background(), s), nil
}

func (d *Dialer) connect(ctx context.Context, s *wsk.Socket, to netip.AddrPort) error {
	if d.RedirectRecords != nil {
		if _, err := do(ctx, "set redirect records", func(p *wsk.IRP) ntstatus.Status {
			return s.ControlSocket(wsk.Ioctl, wsk.SIOSetWFPConnectionRedirectRecords, 0, d.RedirectRecords, nil, nil, p)
		}); err != nil {
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
