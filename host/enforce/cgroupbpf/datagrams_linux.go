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
	a       *Attachment
	udp     *net.UDPConn
	conn    *ipv4.PacketConn
	refused *unreachable.Teller

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

// serveDatagrams listens for those of this host: nothing from outside arrives there.
func (a *Attachment) serveDatagrams(ctx context.Context) error {
	lc := net.ListenConfig{Control: onLoopback}
	c, err := lc.ListenPacket(ctx, "udp4", ":0")
	if err != nil {
		return fmt.Errorf("cgroupbpf: %w", err)
	}
	a.datagrams = &datagrams{a: a, udp: c.(*net.UDPConn), conn: ipv4.NewPacketConn(c), refused: unreachable.New(a.opts.Logf), flows: map[netip.Addr]*datagramFlow{}}
	if err := a.datagrams.conn.SetControlMessage(ipv4.FlagDst, true); err != nil {
		return fmt.Errorf("cgroupbpf: IP_PKTINFO: %w", err)
	}
	a.wg.Go(func() { a.datagrams.receive(ctx) })
	return nil
}

func (d *datagrams) port() uint16 { return swap(d.udp.LocalAddr().(*net.UDPAddr).AddrPort().Port()) }

// receive gives each datagram to its flow, until the socket is closed.
func (d *datagrams) receive(ctx context.Context) {
	b := make([]byte, carry.MaxDatagram)
	for {
		n, control, from, err := d.conn.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || control == nil {
			d.a.opts.Logf("cgroupbpf: datagrams: %v", err)
			continue
		}
		standIn, _ := netip.AddrFromSlice(control.Dst.To4())
		if err := d.give(ctx, standIn, from.(*net.UDPAddr).AddrPort(), append([]byte(nil), b[:n]...)); err != nil {
			d.a.opts.Logf("cgroupbpf: a datagram from %s is lost: %v", from, err)
		}
	}
}

var (
	errTooMany  = fmt.Errorf("there are %d flows", maxFlows)
	errStranger = errors.New("it was not sent here by the kernel")
)

// give queues a datagram for its flow. One of another socket than the flow's came
// past the kernel's part.
func (d *datagrams) give(ctx context.Context, standIn netip.Addr, from netip.AddrPort, b []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.flows[standIn]
	if f == nil {
		if len(d.flows) >= maxFlows {
			return errTooMany
		}
		r := new(bpf.RedirectRecord)
		if err := d.a.objs.Flows.Lookup(standIn.As4(), r); err != nil {
			return errStranger
		}
		f = &datagramFlow{standIn: standIn, from: from, in: incoming(r), queue: make(chan []byte, flowQueue)}
		d.flows[standIn] = f
		d.a.wg.Go(func() { d.carry(ctx, f) })
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
	if d.a.opts.Records != nil {
		f.in.Records = d.a.opts.Records(f.in.EndpointID)
	}
	f.sock = d.a.opts.ALE.NewSocket(f.in)
	defer f.sock.Close()
	err := f.open(ctx, d)
	blocked := err != nil && ctx.Err() == nil
	if blocked {
		d.a.opts.OnBlocked(enforce.Denial{PID: f.in.ProcessID, AppID: f.in.AppID, Local: f.from, Remote: f.in.Remote, Err: err})
	} else if err == nil {
		err = f.relay(ctx, d)
	}
	d.mu.Lock()
	delete(d.flows, f.standIn)
	d.mu.Unlock()
	here := netip.AddrPortFrom(f.standIn, d.udp.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	switch { // Not before: what is sent after that is another flow.
	case blocked:
		d.refused.Tell(f.from, here, unreachable.Prohibited)
	case err == carry.ErrNobody:
		d.refused.Tell(f.from, here, unreachable.PortClosed)
	}
}

// open decides a flow and makes the socket that it goes out by: bound before, since a
// proxy finds the records by its address.
func (f *datagramFlow) open(ctx context.Context, d *datagrams) error {
	var out *net.UDPConn
	f.sock.OnImplicitBind(func(_ context.Context, want netip.AddrPort) (_ netip.AddrPort, err error) {
		network := "udp"
		if want.Addr().Is4() {
			network = "udp4"
		}
		if out, err = net.ListenUDP(network, net.UDPAddrFromAddrPort(want)); err != nil {
			return netip.AddrPort{}, err
		}
		return out.LocalAddr().(*net.UDPAddr).AddrPort(), nil
	})
	to, _, _, err := f.sock.SendTo(ctx, f.in.Remote)
	used := false
	if err == nil {
		f.up, err = carry.Reach(ctx, plain(to), plain(f.in.Remote), d.a.opts.Handoff, func(to netip.AddrPort) (*net.UDPConn, error) {
			used = true
			return out, connect(out, to)
		})
	}
	if out != nil && (err != nil || !used) {
		out.Close()
	}
	return err
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
	answer := &ipv4.ControlMessage{Src: f.standIn.AsSlice()}
	to := net.UDPAddrFromAddrPort(f.from)
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
				_, err = d.conn.WriteTo(got, answer, to)
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
