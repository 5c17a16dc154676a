package wsknet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
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

// DialContext connects to an address: a name is resolved by WskGetAddressInfo,
// and its addresses are tried one after the other. The error is the first one's.
// The networks are tcp, tcp4, tcp6.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	if d.Client == nil {
		return nil, fmt.Errorf("wsk: dial %s %s: %w", network, addr, errNoClient)
	}
	ctx, stop := whileOpen(ctx, d.Client)
	defer stop()
	addrs, err := d.resolve(ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("wsk: dial %s %s: %w", network, addr, err)
	}
	var first error
	for _, to := range addrs {
		c, err := d.dial(ctx, network, to)
		if err == nil {
			return c, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

var errNoClient = errors.New("a wsk.Client is required")

var families = map[string]wsk.AddressFamily{"tcp": wsk.AFUnspec, "tcp4": wsk.AFInet, "tcp6": wsk.AFInet6}

func (d *Dialer) resolve(ctx context.Context, network, addr string) ([]netip.AddrPort, error) {
	family, ok := families[network]
	if !ok {
		return nil, net.UnknownNetworkError(network)
	}
	if to, err := netip.ParseAddrPort(addr); err == nil {
		if family == wsk.AFInet && !to.Addr().Unmap().Is4() || family == wsk.AFInet6 && to.Addr().Is4() {
			return nil, &net.AddrError{Err: "not an address of the network", Addr: addr}
		}
		return []netip.AddrPort{to}, nil
	}
	name, service, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if name == "" {
		return nil, &net.AddrError{Err: "missing host", Addr: addr}
	}
	if n, err := strconv.Atoi(service); err == nil && n != int(uint16(n)) {
		return nil, &net.AddrError{Err: "no port", Addr: addr}
	}
	var list *wsk.AddrInfo
	hints := &wsk.AddrInfo{Family: family, SocketType: wsk.SockStream, Protocol: wsk.IPProtoTCP}
	if _, err := do(ctx, "resolve "+name, func(p *wsk.IRP) ntstatus.Status {
		return d.Client.GetAddressInfo(name, service, hints, &list, p)
	}); err != nil {
		return nil, err
	}
	defer d.Client.FreeAddressInfo(list)
	var addrs []netip.AddrPort
	for a := list; a != nil; a = a.Next {
		addrs = append(addrs, a.Addr)
	}
	return addrs, nil
}

func (d *Dialer) dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	if err := endOf(ctx); err != nil {
		return nil, fmt.Errorf("wsk: dial %s %s: %w", network, to, err)
	}
	r := newRequest()
	s, err := r.open(ctx, d.Client, to.Addr(), wsk.ConnectionSocket)
	if err != nil {
		return nil, err
	}
	connected := false
	defer func() {
		if !connected { // Or code of others panicked.
			r.shut(s)
		}
	}()
	if err := d.connect(ctx, r, s, network, to); err != nil {
		return nil, explain(s, err)
	}
	connected = true
	return newConn(context.Background(), s, r), nil
}

func (d *Dialer) connect(ctx context.Context, r request, s *wsk.Socket, network string, to netip.AddrPort) error {
	if d.Control != nil {
		if err := d.Control(network, to.String(), &rawConn{s}); err != nil {
			return err
		}
	}
	if err := r.set(ctx, s, "keep alive", wsk.SolSocket, wsk.SOKeepAlive, 1); err != nil {
		return err
	}
	from := netip.AddrPortFrom(wildcard(to), 0)
	return r.cancelWith(ctx, func() error {
		if _, err := r.work("bind", func(p *wsk.IRP) ntstatus.Status { return s.Bind(from, 0, p) }); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return &OpError{Op: "connect", Status: ntstatus.Cancelled}
		}
		_, err := r.work("connect", func(p *wsk.IRP) ntstatus.Status { return s.Connect(to, 0, p) })
		return err
	})
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

// SetPeerName says what the peer is called that the connection will reach.
func (c *rawConn) SetPeerName(ctx context.Context, peer netip.AddrPort, name string) error {
	_, err := do(ctx, "set peer target name", func(p *wsk.IRP) ntstatus.Status {
		return c.s.ControlSocket(wsk.Ioctl, wsk.SIOSetPeerTargetName, 0, wsk.AppendPeerTargetName(nil, peer, name), nil, nil, p)
	})
	return err
}

func (c *rawConn) Control(func(uintptr)) error    { return errors.ErrUnsupported }
func (c *rawConn) Read(func(uintptr) bool) error  { return errors.ErrUnsupported }
func (c *rawConn) Write(func(uintptr) bool) error { return errors.ErrUnsupported }
