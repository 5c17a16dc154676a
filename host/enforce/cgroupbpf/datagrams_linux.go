//go:build amd64 || arm64

package cgroupbpf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/cgroupbpf/bpf"
	"github.com/calloutd/calloutd/host/enforce/internal/carry"
	"github.com/calloutd/calloutd/host/enforce/internal/unreachable"
	"github.com/calloutd/calloutd/host/fwps"
)

// datagrams carries those that need an answer. The kernel sends them here, each to
// the address that stands in for where its program sent it, and shows the program
// what comes from there as if it came from where it asked.
type datagrams struct {
	h       *home
	ctx     context.Context // ends with the home
	family  int
	udp     *net.UDPConn
	refused *unreachable.Teller

	loopback int // of IPv6: the interface that this host's own come in on

	mu    sync.Mutex
	flows map[netip.Addr]*datagramFlow // by what stands in
}

const (
	maxFlows  = 1 << 14
	flowQueue = 32
)

// A datagramFlow is one socket's datagrams to one address.
type datagramFlow struct {
	standIn netip.Addr
	from    netip.AddrPort
	in      fwps.Incoming
	queue   chan []byte
	sock    *ale.Socket
	up      carry.Peer
}

// newDatagrams listens for those of this host: nothing from outside is carried.
func (h *home) newDatagrams(ctx context.Context, family int) (*datagrams, error) {
	d := &datagrams{h: h, ctx: ctx, family: family, refused: unreachable.New(h.a.opts.Logf), flows: map[netip.Addr]*datagramFlow{}}
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

// receive gives each datagram to its flow, until the socket is closed.
func (d *datagrams) receive() {
	b, control := make([]byte, carry.MaxDatagram), make([]byte, 128)
	for {
		n, nc, _, from, err := d.udp.ReadMsgUDPAddrPort(b, control)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		standIn, known := d.destination(control[:nc])
		if err == nil && !known {
			err = errStranger
		}
		if err != nil {
			d.h.a.opts.Logf("cgroupbpf: datagrams: %v", err)
			continue
		}
		if err := d.give(standIn, plain(from), append([]byte(nil), b[:n]...)); err != nil {
			d.h.a.opts.Logf("cgroupbpf: a datagram from %s is lost: %v", from, err)
		}
	}
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

var (
	errTooMany  = fmt.Errorf("there are %d flows", maxFlows)
	errStranger = errors.New("it was not sent here by the kernel")
)

// give queues a datagram for its flow. One of another socket than the flow's came
// past the kernel's part.
func (d *datagrams) give(standIn netip.Addr, from netip.AddrPort, b []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.flows[standIn]
	if f == nil {
		if len(d.flows) >= maxFlows {
			return errTooMany
		}
		r := new(bpf.RedirectRecord)
		if err := d.h.a.objs.Flows.Lookup(standIn.As16(), r); err != nil || r.Netns != d.h.netns {
			return errStranger
		}
		f = &datagramFlow{standIn: standIn, from: from, in: incoming(r), queue: make(chan []byte, flowQueue)}
		d.flows[standIn] = f
		d.h.a.wg.Go(func() { d.carry(d.ctx, f) })
	}
	if f.from != from {
		return errStranger
	}
	select {
	case f.queue <- b:
	default: // Datagrams get lost.
	}
	return nil
}

// carry decides a flow and carries it until it is idle. Of one that is blocked the
// next datagram is decided anew.
func (d *datagrams) carry(ctx context.Context, f *datagramFlow) {
	opts := &d.h.a.opts
	if opts.Records != nil {
		f.in.Records = opts.Records(f.in.EndpointID)
	}
	f.sock = opts.ALE.NewSocket(f.in)
	defer f.sock.Close()
	err := f.open(ctx, d)
	blocked := err != nil && ctx.Err() == nil
	if blocked {
		opts.OnBlocked(enforce.Denial{PID: f.in.ProcessID, AppID: f.in.AppID, Local: f.from, Remote: f.in.Remote, Err: err})
	} else if err == nil {
		err = f.relay(ctx, d)
	}
	d.mu.Lock()
	delete(d.flows, f.standIn)
	d.mu.Unlock()
	switch { // Not before: what is sent after that is another flow.
	case blocked:
		d.tell(f, unreachable.Prohibited)
	case err == carry.ErrNobody:
		d.tell(f, unreachable.PortClosed)
	}
}

// tell tells a flow's program that it goes nowhere.
func (d *datagrams) tell(f *datagramFlow, why unreachable.Reason) {
	_ = d.h.do(func() error { // It fails when the namespace is left.
		d.refused.Tell(f.from, d.here(f.standIn), why)
		return nil
	})
}

// open decides a flow and makes the socket that it goes out by: bound before, since a
// proxy finds the records by its address.
func (f *datagramFlow) open(ctx context.Context, d *datagrams) error {
	var out *net.UDPConn
	f.sock.OnImplicitBind(func(_ context.Context, want netip.AddrPort) (_ netip.AddrPort, err error) {
		if out, err = listenUDP(want); err != nil {
			return netip.AddrPort{}, err
		}
		return out.LocalAddr().(*net.UDPAddr).AddrPort(), nil
	})
	to, _, _, err := f.sock.SendTo(ctx, f.in.Remote)
	used := false
	if err == nil {
		f.up, err = carry.Reach(ctx, plain(to), plain(f.in.Remote), d.h.a.opts.Handoff, func(at netip.AddrPort) (*net.UDPConn, error) {
			if d.h.space != nil && to == f.in.Remote {
				return d.h.dialUDP(f.in.Local, at)
			}
			used = true
			return out, connect(out, at)
		})
	}
	if out != nil && (err != nil || !used) {
		out.Close()
	}
	return err
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
	var sa unix.Sockaddr = &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
	if c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Is4() && to.Addr().Is4() {
		sa = &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	}
	if e := raw.Control(func(fd uintptr) { err = unix.Connect(int(fd), sa) }); e != nil {
		return e
	}
	return os.NewSyscallError("connect", err)
}

func plain(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

func (f *datagramFlow) relay(ctx context.Context, d *datagrams) error {
	source := d.source(f.standIn)
	return carry.Datagrams(ctx, f.up.Close,
		func(ctx context.Context, _ []byte) error {
			select {
			case b := <-f.queue:
				if _, _, _, err := f.sock.SendTo(ctx, f.in.Remote); err != nil {
					return err
				}
				return f.up.Send(b)
			case <-ctx.Done():
				return ctx.Err()
			}
		},
		func(_ context.Context, b []byte) error {
			got, err := f.up.Receive(b)
			if err == nil {
				_, _, err = d.udp.WriteMsgUDPAddrPort(got, source, f.from)
			}
			return err
		})
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
