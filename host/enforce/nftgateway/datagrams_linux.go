package nftgateway

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/handoff"
	"github.com/calloutd/calloutd/host/enforce/internal/carry"
	"github.com/calloutd/calloutd/host/enforce/internal/unreachable"
	"github.com/calloutd/calloutd/host/fwps"
)

const descriptorsOfAFlow = 4 // at most: two, the connection to a proxy, and some to spare

// datagrams carries those of one family. The socket has those that begin a flow,
// and what comes until the flow's own socket is there.
type datagrams struct {
	g    *Gateway
	conn *net.UDPConn
	port uint16

	mu    sync.Mutex
	flows map[ends]*flow
}

// ends are those of a flow: who is behind the interface, and whom it sends to.
type ends struct{ from, to netip.AddrPort }

// A flow carries datagrams there and back: what is put to it is from the socket of all.
type flow struct {
	ends
	*carry.Flow
	sock  *ale.Socket
	way   netip.AddrPort // where it may go
	back  *net.UDPConn   // has the address of the one, and is connected to the other
	up    carry.Peer
	abort func() // ends it, for a callout
}

func (g *Gateway) serveDatagrams(ctx context.Context, network string) (uint16, error) {
	lc := net.ListenConfig{Control: func(network, address string, c syscall.RawConn) error {
		if err := transparent(network, address, c); err != nil {
			return err
		}
		level, option := unix.SOL_IP, unix.IP_RECVORIGDSTADDR
		if network == "udp6" {
			level, option = unix.SOL_IPV6, unix.IPV6_RECVORIGDSTADDR
		}
		return setOption(c, level, option, "IP_RECVORIGDSTADDR")
	}}
	c, err := lc.ListenPacket(ctx, network, ":0")
	if err != nil {
		return 0, err
	}
	d := &datagrams{g: g, conn: c.(*net.UDPConn), port: c.LocalAddr().(*net.UDPAddr).AddrPort().Port(), flows: map[ends]*flow{}}
	g.udp = append(g.udp, d)
	g.wg.Go(func() { d.receive(ctx) })
	return d.port, nil
}

func setOption(c syscall.RawConn, level, option int, name string) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) }); e != nil {
		return e
	}
	return os.NewSyscallError("setsockopt "+name, err)
}

// receive gives each datagram to its flow, until the socket is closed.
func (d *datagrams) receive(ctx context.Context) {
	b, control := make([]byte, carry.MaxDatagram), make([]byte, 256)
	for {
		n, nc, _, from, err := d.conn.ReadMsgUDPAddrPort(b, control)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			d.g.log.Printf("nftgateway: datagrams: %v", err)
			continue
		}
		to, ok := sentTo(control[:nc])
		if !ok || to.Port() == d.port && ours(to.Addr()) {
			d.g.log.Printf("nftgateway: datagram from %s was not sent here by the rules", from)
			continue
		}
		if from.Port() == 0 || to.Port() == 0 { // Nobody's; and a socket that is connected to it is to all ports.
			continue
		}
		d.give(ctx, ends{plain(from), to}, b[:n])
	}
}

// sentTo is where a datagram was going.
func sentTo(control []byte) (netip.AddrPort, bool) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return netip.AddrPort{}, false
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_ORIGDSTADDR && len(m.Data) >= 8:
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte(m.Data[4:8])), binary.BigEndian.Uint16(m.Data[2:])), true
		case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_ORIGDSTADDR && len(m.Data) >= 24:
			return netip.AddrPortFrom(netip.AddrFrom16([16]byte(m.Data[8:24])), binary.BigEndian.Uint16(m.Data[2:])), true
		}
	}
	return netip.AddrPort{}, false
}

func (d *datagrams) give(ctx context.Context, e ends, b []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.flows[e]
	if f == nil {
		in := d.g.budget.Flow(carry.Host(e.from.Addr()))
		if in == nil {
			return
		}
		f = &flow{ends: e, Flow: in}
		d.flows[e] = f
		d.g.wg.Go(func() { d.carry(ctx, f) })
	}
	f.Put(b)
}

// carry decides a flow and carries it until nothing has come for a while. Of one
// that is blocked the next datagram is decided anew.
func (d *datagrams) carry(all context.Context, f *flow) {
	in := fwps.Incoming{Protocol: fwps.ProtocolUDP, Local: f.from, Remote: f.to}
	f.sock = d.g.opts.ALE.NewSocket(in)
	defer f.sock.Close()
	ctx, abort := context.WithCancel(all)
	defer abort()
	f.abort = abort
	err := f.open(ctx, d.g.opts.Handoff)
	blocked := err != nil && all.Err() == nil
	if blocked {
		d.g.counts.Refused(err)
		d.g.opts.OnBlocked(enforce.Denial{Local: f.from, Remote: f.to, Err: err})
	} else if err == nil {
		err = f.relay(ctx)
	}
	d.mu.Lock()
	delete(d.flows, f.ends)
	d.mu.Unlock()
	f.End()
	if e := (*carry.Elsewhere)(nil); errors.As(err, &e) {
		d.give(all, f.ends, e.Datagram)
	}
	switch { // Not before: what is sent after that is another flow.
	case blocked:
		d.g.refused.Tell(f.from, f.to, unreachable.Prohibited)
	case err == carry.ErrNobody:
		d.g.refused.Tell(f.from, f.to, unreachable.PortClosed)
	}
}

// open decides a flow and makes its two sockets.
func (f *flow) open(ctx context.Context, find handoff.Finder) error {
	to, decided, _, err := f.sock.SendTo(ctx, f.to)
	if err != nil {
		return err
	}
	decided.OnAbort(f.abort)
	f.way = to
	if f.back, err = answering(ctx, f.ends); err != nil {
		return err
	}
	f.up, err = carry.Reach(ctx, plain(to), f.to, find, func(at netip.AddrPort) (*net.UDPConn, error) {
		c, err := dial(at)
		if err == nil {
			decided.SendsFrom(c.LocalAddr().(*net.UDPAddr).AddrPort())
		}
		return c, err
	})
	if err != nil {
		f.back.Close()
	}
	return err
}

// answering returns a socket at the far end's address, connected to who is behind
// the interface: what that one sends from now on arrives here.
func answering(ctx context.Context, e ends) (*net.UDPConn, error) {
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(e.to), Control: func(network, address string, c syscall.RawConn) error {
		if err := setOption(c, unix.SOL_SOCKET, unix.SO_REUSEADDR, "SO_REUSEADDR"); err != nil { // Others talk to that one, too.
			return err
		}
		return transparent(network, address, c)
	}}
	c, err := d.DialContext(ctx, "udp", e.from.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

func dial(to netip.AddrPort) (*net.UDPConn, error) {
	return net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
}

// relay carries until the flow is idle, a policy ends it, or ctx does, and says why
// it ended.
func (f *flow) relay(ctx context.Context) error {
	return carry.Datagrams(ctx, func() { f.back.Close(); f.up.Close() },
		f.Queued(f.forth),
		f.Received(carry.Socket{UDPConn: f.back}, f.forth),
		f.Answered(f.up, func(_ context.Context, b []byte) error {
			_, err := f.back.Write(b)
			return err
		}))
}

// forth sends one on, if it still may go.
func (f *flow) forth(ctx context.Context, b []byte) error {
	if err := carry.SameWay(ctx, f.sock, f.to, f.way, f.abort, b); err != nil {
		return err
	}
	return f.up.Send(b)
}
