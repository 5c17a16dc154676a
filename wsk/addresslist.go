package wsk

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// SOCKET_ADDRESS_LIST has pointers, which bytes cannot: in their place stands
// the offset of the SOCKADDR from the start of the buffer.
const (
	addressListHeader = 8  // iAddressCount and its padding
	socketAddress     = 16 // sizeof(SOCKET_ADDRESS)
)

// AppendAddressList appends the SOCKET_ADDRESS_LIST of addresses to an empty b.
func AppendAddressList(b []byte, addrs []netip.Addr) []byte {
	b = le.AppendUint64(b, uint64(len(addrs)))
	at := addressListHeader + len(addrs)*socketAddress
	for _, a := range addrs {
		b = le.AppendUint64(b, uint64(at))
		b = le.AppendUint64(b, uint64(sockaddrLen(a)))
		at += sockaddrLen(a)
	}
	for _, a := range addrs {
		b = AppendSockaddr(b, netip.AddrPortFrom(a, 0))
	}
	return b
}

// ParseAddressList reads a SOCKET_ADDRESS_LIST.
func ParseAddressList(b []byte) ([]netip.Addr, bool) {
	if len(b) < addressListHeader {
		return nil, false
	}
	n := uint64(le.Uint32(b))
	if n > uint64(len(b)-addressListHeader)/socketAddress {
		return nil, false
	}
	addrs := make([]netip.Addr, 0, n)
	for i := range int(n) {
		e := b[addressListHeader+i*socketAddress:]
		at, size := le.Uint64(e), uint64(le.Uint32(e[8:]))
		if at > uint64(len(b)) || size > uint64(len(b))-at {
			return nil, false
		}
		a, ok := ParseSockaddr(b[at : at+size])
		if !ok {
			return nil, false
		}
		addrs = append(addrs, a.Addr())
	}
	return addrs, true
}

// addresses are the host's addresses of the socket's family, in a stable order.
func (s *Socket) addresses() ([]netip.Addr, error) {
	all, err := s.client.provider.addresses()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range all {
		if a.Is4() == (s.family == AFInet) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out, nil
}

func (p *Provider) addresses() ([]netip.Addr, error) {
	if p.opts.Addresses != nil {
		return p.opts.Addresses()
	}
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if a, ok := netip.AddrFromSlice(n.IP); ok {
				out = append(out, a.Unmap())
			}
		}
	}
	return out, nil
}

// overflow is how the list queries say that out is too small.
func overflow(list, out []byte) (ntstatus.Status, int) {
	if len(out) < len(list) {
		return ntstatus.BufferOverflow, len(list)
	}
	return ntstatus.Success, copy(out, list)
}

func (s *Socket) queryAddressList(_ uint32, _, out []byte) (ntstatus.Status, int) {
	addrs, err := s.addresses()
	if err != nil {
		return status(err), 0
	}
	return overflow(AppendAddressList(nil, addrs), out)
}

// addressPoll is how often SIO_ADDRESS_LIST_CHANGE looks: no call tells of
// changes on every system.
const addressPoll = 500 * time.Millisecond

// awaitAddressChange answers SIO_ADDRESS_LIST_CHANGE, which always pends.
func (s *Socket) awaitAddressChange(c call, _ []byte) ntstatus.Status {
	before, err := s.addresses()
	if err != nil {
		return c.done(status(err), 0)
	}
	stop := make(chan struct{})
	return c.pend(func() { close(stop) }, func() (ntstatus.Status, int) {
		t := time.NewTicker(addressPoll)
		defer t.Stop()
		for {
			select {
			case <-t.C:
			case <-stop:
				return ntstatus.Cancelled, 0
			case <-s.ctx.Done():
				return ntstatus.Cancelled, 0
			}
			// A failure is no change; the next look may succeed.
			if now, err := s.addresses(); err == nil && !slices.Equal(before, now) {
				return ntstatus.Success, 0
			}
		}
	})
}

// precedence is the policy table of RFC 6724, the highest first.
var precedence = []struct {
	prefix netip.Prefix
	value  int
}{
	{netip.MustParsePrefix("::1/128"), 50}, {netip.MustParsePrefix("::ffff:0:0/96"), 35}, {netip.MustParsePrefix("2002::/16"), 30},
	{netip.MustParsePrefix("2001::/32"), 5}, {netip.MustParsePrefix("fc00::/7"), 3}, {netip.MustParsePrefix("::/96"), 1},
	{netip.MustParsePrefix("fec0::/10"), 1}, {netip.MustParsePrefix("3ffe::/16"), 1}, {netip.MustParsePrefix("::/0"), 40},
}

func precedenceOf(a netip.Addr) int {
	a = netip.AddrFrom16(a.As16())
	for _, p := range precedence {
		if p.prefix.Contains(a) || p.prefix.Addr().Is4In6() && a.Is4In6() {
			return p.value
		}
	}
	return 0
}

// sortAddressList answers SIO_ADDRESS_LIST_SORT: the destinations of in, the
// best first, by the precedence of RFC 6724; equals stay in order.
func (s *Socket) sortAddressList(_ uint32, in, out []byte) (ntstatus.Status, int) {
	addrs, ok := ParseAddressList(in)
	if !ok {
		return ntstatus.InvalidParameter, 0
	}
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return precedenceOf(b) - precedenceOf(a) })
	return overflow(AppendAddressList(nil, addrs), out)
}

// setKeepAliveVals answers SIO_KEEPALIVE_VALS, an ioctl of the transport: a
// tcp_keepalive of {onoff, keepalivetime, keepaliveinterval} in milliseconds.
func (s *Socket) setKeepAliveVals(_ uint32, in, _ []byte) (ntstatus.Status, int) {
	switch {
	case len(in) < 12:
		return ntstatus.InvalidParameter, 0
	case s.conn == nil:
		return ntstatus.InvalidDeviceState, 0
	}
	s.opts.keepAlive = le.Uint32(in) != 0
	return status(s.conn.SetKeepAliveConfig(net.KeepAliveConfig{Enable: s.opts.keepAlive,
		Idle: time.Duration(le.Uint32(in[4:])) * time.Millisecond, Interval: time.Duration(le.Uint32(in[8:])) * time.Millisecond})), 0
}
