package wsk

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// Flags of AddrInfo.
const (
	AIPassive     uint32 = 0x1 // AI_PASSIVE: an address to bind to
	AICanonName   uint32 = 0x2 // AI_CANONNAME
	AINumericHost uint32 = 0x4 // AI_NUMERICHOST: ask no resolver
	AINumericServ uint32 = 0x8 // AI_NUMERICSERV
)

// Flags of GetNameInfo.
const (
	NINoFQDN      uint32 = 0x1  // NI_NOFQDN
	NINumericHost uint32 = 0x2  // NI_NUMERICHOST
	NINameReqd    uint32 = 0x4  // NI_NAMEREQD
	NINumericServ uint32 = 0x8  // NI_NUMERICSERV
	NIDgram       uint32 = 0x10 // NI_DGRAM
)

// AddrInfo is ADDRINFOEXW, without the name spaces of Windows.
type AddrInfo struct {
	Flags      uint32
	Family     AddressFamily
	SocketType SocketType
	Protocol   Protocol
	CanonName  string
	Addr       netip.AddrPort
	Next       *AddrInfo
}

// GetAddressInfo is WskGetAddressInfo. hints may be nil. *result is filled
// before the IRP is completed, and given back with FreeAddressInfo. The
// statuses of failures are those of the pages: STATUS_NOT_FOUND for a name that
// is unknown, STATUS_INVALID_PARAMETER for wrong hints.
func (c *Client) GetAddressInfo(node, service string, hints *AddrInfo, result **AddrInfo, irp *IRP) (st ntstatus.Status) {
	if t := c.tracer.Load(); t != nil {
		defer t.call(irp, &st, "WskGetAddressInfo", "%q, %q", node, service)
	}
	k, st := c.enter(irp)
	if st != ntstatus.Success {
		return st
	}
	var h AddrInfo
	if hints != nil {
		h = *hints
	}
	if result == nil || node == "" && service == "" || h.Family != AFUnspec && h.Family != AFInet && h.Family != AFInet6 {
		return k.done(ntstatus.InvalidParameter, 0)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return k.pend(cancel, func() (ntstatus.Status, int) {
		defer cancel()
		list, err := resolve(ctx, node, service, h)
		if err != nil {
			return resolveStatus(err), 0
		}
		*result = list
		return ntstatus.Success, 0
	})
}

// FreeAddressInfo is WskFreeAddressInfo. The list is the garbage collector's;
// what is freed must not be used, so its links are cut.
func (c *Client) FreeAddressInfo(list *AddrInfo) {
	for list != nil {
		next := list.Next
		*list = AddrInfo{}
		list = next
	}
}

func resolveStatus(err error) ntstatus.Status {
	var d *net.DNSError
	switch {
	case errors.Is(err, context.Canceled):
		return ntstatus.Cancelled
	case errors.As(err, &d) && d.IsNotFound:
		return ntstatus.NotFound
	case errors.As(err, &d) && d.IsTimeout:
		return ntstatus.IOTimeout
	}
	if st := status(err); st != ntstatus.Unsuccessful {
		return st
	}
	return ntstatus.NotFound
}

func resolve(ctx context.Context, node, service string, h AddrInfo) (*AddrInfo, error) {
	port, err := servicePort(ctx, service, h)
	if err != nil {
		return nil, err
	}
	addrs, err := nodeAddrs(ctx, node, h)
	if err != nil {
		return nil, err
	}
	var first *AddrInfo
	last := &first
	for _, a := range addrs {
		f := AFInet6
		if a.Is4() {
			f = AFInet
		}
		if h.Family != AFUnspec && h.Family != f {
			continue
		}
		for _, t := range transportList {
			if t.Family != f || h.SocketType != 0 && h.SocketType != t.SocketType || h.Protocol != 0 && h.Protocol != t.Protocol {
				continue
			}
			x := &AddrInfo{Flags: h.Flags, Family: f, SocketType: t.SocketType, Protocol: t.Protocol, Addr: netip.AddrPortFrom(a, port)}
			if first == nil && h.Flags&AICanonName != 0 {
				x.CanonName = node
			}
			*last, last = x, &x.Next
		}
	}
	if first == nil {
		return nil, ntstatus.NotFound.Err()
	}
	return first, nil
}

func servicePort(ctx context.Context, service string, h AddrInfo) (uint16, error) {
	if service == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(service, 10, 16); err == nil {
		return uint16(n), nil
	}
	if h.Flags&AINumericServ != 0 {
		return 0, &net.DNSError{Err: "not a number", Name: service, IsNotFound: true}
	}
	network := "tcp"
	if h.SocketType == SockDgram {
		network = "udp"
	}
	n, err := net.DefaultResolver.LookupPort(ctx, network, service)
	return uint16(n), err
}

func nodeAddrs(ctx context.Context, node string, h AddrInfo) ([]netip.Addr, error) {
	switch {
	case node == "" && h.Flags&AIPassive != 0:
		return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}, nil
	case node == "":
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
	}
	if a, err := netip.ParseAddr(node); err == nil {
		return []netip.Addr{a}, nil
	}
	if h.Flags&AINumericHost != 0 {
		return nil, &net.DNSError{Err: "not an address", Name: node, IsNotFound: true}
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", node)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, err
}

// GetNameInfo is WskGetNameInfo: the names of an address and its port. node and
// service, either of which may be nil, are filled before the IRP is completed. A
// host without a name is its address, or STATUS_NOT_FOUND with NINameReqd;
// services are numbers.
func (c *Client) GetNameInfo(addr netip.AddrPort, node, service *string, flags uint32, irp *IRP) (st ntstatus.Status) {
	if t := c.tracer.Load(); t != nil {
		defer t.call(irp, &st, "WskGetNameInfo", "%v, flags %#x", addr, flags)
	}
	k, st := c.enter(irp)
	if st != ntstatus.Success {
		return st
	}
	const all = NINoFQDN | NINumericHost | NINameReqd | NINumericServ | NIDgram
	if !addr.IsValid() || node == nil && service == nil || flags&^all != 0 || flags&NINumericHost != 0 && flags&NINameReqd != 0 {
		return k.done(ntstatus.InvalidParameter, 0)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return k.pend(cancel, func() (ntstatus.Status, int) {
		defer cancel()
		if node != nil {
			name, err := hostName(ctx, addr.Addr(), flags)
			if err != nil {
				return resolveStatus(err), 0
			}
			*node = name
		}
		if service != nil {
			*service = strconv.Itoa(int(addr.Port()))
		}
		return ntstatus.Success, 0
	})
}

func hostName(ctx context.Context, a netip.Addr, flags uint32) (string, error) {
	if flags&NINumericHost != 0 {
		return a.String(), nil
	}
	names, err := net.DefaultResolver.LookupAddr(ctx, a.String())
	if err != nil || len(names) == 0 {
		switch {
		case ctx.Err() != nil:
			return "", ctx.Err()
		case flags&NINameReqd != 0:
			return "", &net.DNSError{Err: "no name", Name: a.String(), IsNotFound: true}
		}
		return a.String(), nil
	}
	name := strings.TrimSuffix(names[0], ".")
	if flags&NINoFQDN != 0 {
		name, _, _ = strings.Cut(name, ".")
	}
	return name, nil
}
