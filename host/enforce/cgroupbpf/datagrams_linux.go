//go:build amd64 || arm64

package cgroupbpf

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"

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

// A datagramFlow is one socket's datagrams to one address.
type datagramFlow struct {
	*carry.Flow
	standIn netip.Addr
	from    netip.AddrPort
	in      fwps.Incoming
	refused error // before anybody is asked
	sock    *ale.Socket
	way     netip.AddrPort // where it may go
	up      carry.Peer
	leaves  netip.Addr // where it comes from once it goes anywhere
	abort   func()     // ends it, for a callout
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
			d.h.a.log.Printf("cgroupbpf: datagrams: %v", err)
			continue
		}
		if err := d.give(standIn, plain(from), b[:n]); err != nil {
			d.h.a.log.Printf("cgroupbpf: a datagram from %s is lost: %v", from, err)
		}
	}
}

var errStranger = errors.New("it was not sent here by the kernel")

// give queues a datagram for its flow. One of another socket than the flow's came
// past the kernel's part.
func (d *datagrams) give(standIn netip.Addr, from netip.AddrPort, b []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.flows[standIn]
	if f == nil {
		r := new(bpf.RedirectRecord)
		if err := d.h.a.objs.Flows.Lookup(standIn.As16(), r); err != nil || r.Netns != d.h.netns {
			return errStranger
		}
		in := d.h.a.budget.Flow(carry.User(r.User))
		if in == nil {
			return nil
		}
		f = &datagramFlow{Flow: in, standIn: standIn, from: from, in: incoming(r)}
		f.refused = d.h.refuses(r, &f.in)
		d.flows[standIn] = f
		d.h.a.wg.Go(func() { d.carry(d.ctx, f) })
	}
	if f.from != from {
		return errStranger
	}
	f.Put(b)
	return nil
}

// carry decides a flow and carries it until it is idle. Of one that is blocked the
// next datagram is decided anew.
func (d *datagrams) carry(all context.Context, f *datagramFlow) {
	ctx, abort := context.WithCancel(all)
	defer abort()
	f.abort = abort
	opts := &d.h.a.opts
	if opts.Records != nil {
		f.in.Records = opts.Records(f.in.EndpointID)
	}
	f.sock = opts.ALE.NewSocket(f.in)
	defer f.sock.Close()
	err := f.refused
	if err == nil {
		err = f.open(ctx, d)
	}
	blocked := err != nil && all.Err() == nil
	if blocked {
		d.h.a.counts.Refused(err)
		opts.OnBlocked(enforce.Denial{PID: f.in.ProcessID, AppID: f.in.AppID, Local: f.from, Remote: f.in.Remote, Err: err})
	} else if err == nil {
		err = f.relay(ctx, d)
	}
	d.mu.Lock()
	delete(d.flows, f.standIn)
	d.mu.Unlock()
	f.End()
	if e := (*carry.Elsewhere)(nil); errors.As(err, &e) {
		if err := d.give(f.standIn, f.from, e.Datagram); err != nil {
			opts.Logf("cgroupbpf: a datagram from %s is lost: %v", f.from, err)
		}
	}
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
	f.sock.OnSource(func(_ context.Context, to netip.AddrPort) (netip.Addr, error) {
		if f.leaves.IsValid() { // The first datagram is decided anew if it is another one.
			return f.leaves, nil
		}
		return d.h.source(f.in.Protocol, to, to != f.in.Remote)
	})
	to, decided, _, err := f.sock.SendTo(ctx, f.in.Remote)
	used := false
	if err == nil {
		decided.OnAbort(f.abort)
		f.way = to
		f.up, err = carry.Reach(ctx, plain(to), plain(f.in.Remote), d.h.a.opts.Handoff, func(at netip.AddrPort) (c *net.UDPConn, err error) {
			if d.h.space != nil && to == f.in.Remote {
				c, err = d.h.dialUDP(f.in.Local, at)
			} else {
				used = true
				c, err = out, connect(out, at)
			}
			if err == nil {
				f.leaves = sourceOf(c)
			}
			return c, err
		})
	}
	if out != nil && (err != nil || !used) {
		out.Close()
	}
	return err
}

func (f *datagramFlow) relay(ctx context.Context, d *datagrams) error {
	source := d.source(f.standIn)
	return carry.Datagrams(ctx, f.up.Close,
		f.Queued(func(ctx context.Context, b []byte) error {
			if now := program(f.in.ProcessID); now != f.in.AppID && now != "" {
				return &carry.Elsewhere{Datagram: bytes.Clone(b)} // An exec: it is the next program's.
			}
			if err := carry.SameWay(ctx, f.sock, f.in.Remote, f.way, f.abort, b); err != nil {
				return err
			}
			return f.up.Send(b)
		}),
		f.Answered(f.up, func(_ context.Context, b []byte) error {
			_, _, err := d.udp.WriteMsgUDPAddrPort(b, source, f.from)
			return err
		}))
}
