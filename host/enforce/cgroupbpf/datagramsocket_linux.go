//go:build amd64 || arm64

package cgroupbpf

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/internal/unreachable"
)

// port is where datagrams are taken, in network order; zero if they are not.
func (d *datagrams) port() uint16 {
	if d == nil {
		return 0
	}
	return swap(d.here(netip.Addr{}).Port())
}

// here is an address that stands in for another, as a program sends to it.
func (d *datagrams) here(standIn netip.Addr) netip.AddrPort {
	return netip.AddrPortFrom(standIn, d.udp.LocalAddr().(*net.UDPAddr).AddrPort().Port())
}

// newDatagrams listens for those of this host: nothing from outside is carried.
func (h *home) newDatagrams(ctx context.Context, family int) (*datagrams, error) {
	d := &datagrams{h: h, ctx: ctx, family: family, refused: unreachable.New(h.a.log.Printf), flows: map[netip.Addr]*datagramFlow{}}
	network, listen := "udp4", net.ListenConfig{Control: onLoopback}
	if family == ip6 {
		var err error
		if h.standIns, err = addStandIns(h.a.prefix); err != nil {
			return nil, fmt.Errorf("cgroupbpf: datagrams of IPv6: %w", err)
		}
		d.loopback = h.standIns.lo
		network, listen.Control = "udp6", fromAnywhere
	}
	c, err := listen.ListenPacket(ctx, network, ":0")
	if err != nil {
		return nil, fmt.Errorf("cgroupbpf: %w", err)
	}
	if family == ip4 {
		err = ipv4.NewPacketConn(c).SetControlMessage(ipv4.FlagDst, true)
	} else {
		err = ipv6.NewPacketConn(c).SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("cgroupbpf: IP_PKTINFO: %w", err)
	}
	d.udp = c.(*net.UDPConn)
	return d, nil
}

func onLoopback(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), "lo") }); e != nil {
		return e
	}
	return os.NewSyscallError("setsockopt SO_BINDTODEVICE", err)
}

// fromAnywhere can answer from addresses that no interface has. It is not bound to
// loopback: from there IPv6 does not find the host's other addresses.
func fromAnywhere(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1) }); e != nil {
		return e
	}
	return os.NewSyscallError("setsockopt IPV6_FREEBIND", err)
}

// destination is where a datagram of this host came to.
func (d *datagrams) destination(control []byte) (netip.Addr, bool) {
	var v4 ipv4.ControlMessage
	var v6 ipv6.ControlMessage
	if d.family == ip4 && v4.Parse(control) == nil {
		a, ok := netip.AddrFromSlice(v4.Dst)
		return a.Unmap(), ok
	}
	if d.family == ip6 && v6.Parse(control) == nil && v6.IfIndex == d.loopback {
		return netip.AddrFromSlice(v6.Dst)
	}
	return netip.Addr{}, false
}

// source is what makes an answer come from an address.
func (d *datagrams) source(standIn netip.Addr) []byte {
	if d.family == ip4 {
		return (&ipv4.ControlMessage{Src: standIn.AsSlice()}).Marshal()
	}
	return (&ipv6.ControlMessage{Src: standIn.AsSlice()}).Marshal()
}

func listenUDP(want netip.AddrPort) (*net.UDPConn, error) {
	network := "udp"
	if want.Addr().Is4() {
		network = "udp4"
	}
	return net.ListenUDP(network, net.UDPAddrFromAddrPort(want))
}

// dialUDP is a socket where the program is. Proxies do not look for its address: what
// goes to them leaves from here.
func (h *home) dialUDP(local, to netip.AddrPort) (c *net.UDPConn, err error) {
	err = h.do(func() (err error) {
		if c, err = listenUDP(local); err != nil {
			return err
		}
		if err = connect(c, to); err != nil {
			c.Close()
		}
		return err
	})
	return c, err
}

// connect connects a socket: it hears of no other peer from then on.
func connect(c *net.UDPConn, to netip.AddrPort) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var scope uint64
	if zone := to.Addr().Zone(); zone != "" { // ale has made numbers of names.
		if scope, err = strconv.ParseUint(zone, 10, 32); err != nil {
			return fmt.Errorf("there is no link %q", zone)
		}
	}
	var sa unix.Sockaddr = &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port()), ZoneId: uint32(scope)}
	if c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Is4() && to.Addr().Is4() {
		sa = &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	}
	if e := raw.Control(func(fd uintptr) { err = unix.Connect(int(fd), sa) }); e != nil {
		return e
	}
	return os.NewSyscallError("connect", err)
}

// sourceOf is where a socket sends from that connect has connected, not valid if nobody can say. The one of the
// library is from before.
func sourceOf(c *net.UDPConn) (a netip.Addr) {
	raw, err := c.SyscallConn()
	if err != nil {
		return a
	}
	_ = raw.Control(func(fd uintptr) {
		switch sa, _ := unix.Getsockname(int(fd)); sa := sa.(type) {
		case *unix.SockaddrInet4:
			a = netip.AddrFrom4(sa.Addr)
		case *unix.SockaddrInet6:
			a = netip.AddrFrom16(sa.Addr).Unmap()
		}
	})
	return a
}

func plain(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
