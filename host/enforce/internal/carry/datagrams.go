package carry

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce/handoff"
)

const (
	flowLife = 2 * time.Minute // without a datagram, either way
	// MaxDatagram is room for any datagram, in bytes.
	MaxDatagram = 1 << 16
)

// A Peer is where a flow's datagrams go.
type Peer interface {
	// Send does not keep b.
	Send(b []byte) error
	Source
	Close()
}

// A Source is a socket.
type Source interface {
	syscall.Conn
	// Receive receives a datagram and returns it, a part of b; nil for one of somebody else.
	Receive(b []byte) ([]byte, error)
}

// ErrNobody is what a Peer returns when nobody is where a flow goes.
var ErrNobody = errors.New("the port is closed")

// An Elsewhere is what ends a flow that is decided anew, and goes somewhere else from this
// datagram on.
type Elsewhere struct{ Datagram []byte }

func (*Elsewhere) Error() string { return "the flow goes elsewhere now" }

// SameWay asks about another datagram of the flow to remote, which goes to to. One that was
// idle for a while, or aborted, begins again, and is not always let go to where it went
// before. abort ends what is carried when a callout aborts the new one.
func SameWay(ctx context.Context, s *ale.Socket, remote, to netip.AddrPort, abort func(), b []byte) error {
	now, f, created, err := s.SendTo(ctx, remote)
	switch {
	case err != nil:
		return err
	case now != to:
		return &Elsewhere{bytes.Clone(b)}
	case created:
		f.OnAbort(abort)
	}
	return nil
}

func nobody(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return ErrNobody
	}
	return err
}

// Reach is the way to where a flow may go: a socket that dial connects, or a proxy of
// somebody else, who is asked for whom it wanted.
func Reach(ctx context.Context, to, wanted netip.AddrPort, find handoff.Finder, dial func(to netip.AddrPort) (*net.UDPConn, error)) (Peer, error) {
	if p := find.Find(to); p != nil && to != wanted {
		ctx, cancel := context.WithTimeout(ctx, handoffTime)
		defer cancel()
		a, err := handoff.Associate(ctx, to, p)
		if err != nil {
			return nil, err
		}
		return behindProxy{a, wanted}, nil
	}
	c, err := dial(to)
	if err != nil {
		return nil, err
	}
	return direct{Socket{c}}, nil
}

// A Socket is a Source of what comes to it.
type Socket struct{ *net.UDPConn }

// Receive implements Source.
func (s Socket) Receive(b []byte) ([]byte, error) { n, err := s.Read(b); return b[:n], err }

type direct struct{ Socket }

func (p direct) Send(b []byte) error { _, err := p.Write(b); return nobody(err) }

func (p direct) Close() { p.UDPConn.Close() }

type behindProxy struct {
	*handoff.Association
	to netip.AddrPort
}

func (p behindProxy) Send(b []byte) error { return p.WriteTo(b, p.to) }

func (p behindProxy) Receive(b []byte) ([]byte, error) {
	got, from, err := p.ReadFrom(b)
	if from != p.to {
		got = nil
	}
	return got, err
}

// Datagrams carries a flow: it calls each of the functions again and again until one fails,
// whose error it returns, none has carried anything for two minutes, or ctx ends. Then it
// calls end, which makes them return.
func Datagrams(ctx context.Context, end func(), carry ...func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var used Used
	used.Note()
	var wg sync.WaitGroup
	for _, carry := range carry {
		wg.Go(func() {
			for {
				if err := carry(ctx); err != nil {
					cancel(err)
					return
				}
				used.Note()
			}
		})
	}
	idle(ctx, &used)
	err := context.Cause(ctx)
	cancel(nil)
	end()
	wg.Wait()
	return err
}

// idle returns when nothing was used for a while, or ctx ends.
func idle(ctx context.Context, used *Used) {
	t := time.NewTimer(flowLife)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			left := flowLife - used.Idle(time.Now())
			if left <= 0 {
				return
			}
			t.Reset(left)
		}
	}
}
