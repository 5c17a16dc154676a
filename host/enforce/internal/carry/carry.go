// Package carry carries connections that were sent to this process to where the
// layers let them go.
package carry

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/handoff"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/wsk/transport"
)

// A Carrier carries connections. Its fields are not to be changed once it does.
type Carrier struct {
	ALE       *ale.Enforcer        // Required.
	OnBlocked func(enforce.Denial) // Required.
	Handoff   handoff.Finder       // Optional.
	// OnTimeout hears of a connection that ends because somebody did not answer. Required.
	OnTimeout func(in *fwps.Incoming, err error)
	// Dial connects to where a connection may go; redirected: by a callout. Optional.
	Dial func(ctx context.Context, d *net.Dialer, to netip.AddrPort, redirected bool) (net.Conn, error)
	// Source is where what Dial connects would come from (ale.SourceFunc). Optional: it is what
	// in.Local says.
	Source func(protocol uint8, to netip.AddrPort, redirected bool) (netip.Addr, error)

	Counts *Counts // Required.

	ids IDs
}

// handoffTime is how long a proxy of somebody else may take.
const handoffTime = 15 * time.Second

// Carry decides the connection that in is about and carries it, from c. A block,
// and a destination that is not reached, is a reset. It closes c.
func (r *Carrier) Carry(ctx context.Context, c *net.TCPConn, in fwps.Incoming) {
	var up *net.TCPConn
	sock := r.ALE.NewSocket(in)
	defer sock.Close()
	if r.Source != nil {
		sock.OnSource(func(_ context.Context, to netip.AddrPort) (netip.Addr, error) {
			return r.Source(in.Protocol, to, to != in.Remote)
		})
	}
	flow, err := sock.Connect(ctx, in.Remote, func(ctx context.Context, to ale.Target) (netip.AddrPort, error) {
		var err error
		up, err = r.connect(ctx, &in, to)
		if err != nil {
			return netip.AddrPort{}, err
		}
		return up.LocalAddr().(*net.TCPAddr).AddrPort(), nil
	})
	if err != nil {
		if up != nil {
			Reset(up)
		}
		if t := net.Error(nil); errors.As(err, &t) && t.Timeout() {
			r.OnTimeout(&in, err)
		}
		if ctx.Err() == nil {
			r.Counts.Refused(err)
		}
		r.refuse(c, &in, err)
		return
	}
	r.Counts.carried.Add(1)
	defer flow.Close()
	defer up.Close()
	defer c.Close()
	flow.OnAbort(func() { // By a callout: who relays resets both.
		_ = up.SetDeadline(past) // They may be closed: then all is over.
		_ = c.SetDeadline(past)
	})
	if err := relay(c, up, func() error { return flow.Reauthorize(ctx) }); err != nil {
		Reset(up)
		if errors.Is(err, syscall.ETIMEDOUT) { // A deadline is how the other direction, or a callout, ends it.
			r.OnTimeout(&in, err)
		}
		r.refuse(c, &in, err)
	}
}

// refuse resets a connection. Whoever sees the reset finds the reason told, unless it is
// the destination's.
func (r *Carrier) refuse(c *net.TCPConn, in *fwps.Incoming, err error) {
	b := (*ale.BlockedError)(nil)
	if errors.As(err, &b) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		r.OnBlocked(enforce.Denial{PID: in.ProcessID, AppID: in.AppID, Local: in.Local, Remote: in.Remote, Err: err})
	}
	Reset(c)
}

// connect connects to where a connection may go, and hands it over if that is a
// proxy of somebody else.
func (r *Carrier) connect(ctx context.Context, in *fwps.Incoming, to ale.Target) (*net.TCPConn, error) {
	remote := netip.AddrPortFrom(to.Remote.Addr().Unmap(), to.Remote.Port())
	var d net.Dialer
	d.SetMultipathTCP(false)
	if to.Local.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(to.Local)
	}
	conn, err := r.dial(ctx, &d, remote, to.Remote != in.Remote)
	if err != nil {
		return nil, err
	}
	up := conn.(*net.TCPConn)
	p := r.Handoff.Find(remote)
	if p == nil || to.Remote == in.Remote {
		return up, nil
	}
	request, err := Request(r.ALE, p, in, to)
	if err == nil {
		request.Source, request.UniqueID = up.LocalAddr().(*net.TCPAddr).AddrPort(), r.ids.Next()
		err = introduce(ctx, p, up, &request)
	}
	if err != nil {
		up.Close()
		return nil, err
	}
	return up, nil
}

// introduce hands a connection over. It ends with ctx.
func introduce(ctx context.Context, p *handoff.Proxy, up *net.TCPConn, r *handoff.Request) error {
	_ = up.SetDeadline(time.Now().Add(handoffTime)) // Nobody has closed it.
	stop := context.AfterFunc(ctx, func() { _ = up.SetDeadline(past) })
	err := p.Introduce(up, r)
	if !stop() {
		return context.Cause(ctx)
	}
	return errors.Join(err, up.SetDeadline(time.Time{}))
}

func (r *Carrier) dial(ctx context.Context, d *net.Dialer, to netip.AddrPort, redirected bool) (net.Conn, error) {
	if r.Dial != nil {
		return r.Dial(ctx, d, to, redirected)
	}
	return d.DialContext(ctx, "tcp", to.String())
}

// Request is what a proxy is told about the redirect of a connection.
func Request(e *ale.Enforcer, p *handoff.Proxy, in *fwps.Incoming, to ale.Target) (r handoff.Request, err error) {
	r.Destination, r.Authority = in.Remote, to.PeerName
	if hop := to.Records.Last(); hop != nil && p.Kind == handoff.ProxyProtocol {
		r.Context = hop.Context
		r.Records, err = e.Seal(to.Records)
	}
	return r, err
}

// IDs numbers connections, differently in each process. The zero value works.
type IDs struct {
	once sync.Once
	run  [8]byte
	last atomic.Uint64
}

// Next returns an identity that no other connection has.
func (n *IDs) Next() []byte {
	n.once.Do(func() { _, _ = rand.Read(n.run[:]) }) // It never fails.
	return binary.BigEndian.AppendUint64(bytes.Clone(n.run[:]), n.last.Add(1))
}

// Reset closes a connection the way a refused one ends.
func Reset(c *net.TCPConn) {
	_ = c.SetLinger(0) // The close that follows is all that can be done about it.
	c.Close()
}

// relay moves bytes both ways until both ends are done, passing each end's half-close
// on, or one fails. may is asked before bytes go on (ALE-LAY-12).
func relay(a, b *net.TCPConn, may func() error) error {
	other := make(chan error)
	go func() { other <- half(a, b, may) }()
	err := half(b, a, may)
	if back := <-other; err == nil || errors.Is(err, os.ErrDeadlineExceeded) { // That was only told.
		err = back
	}
	return err
}

// half moves bytes one way. Its failure ends the other way too: a deadline leaves the
// connections open to be reset.
func half(dst, src *net.TCPConn, may func() error) error {
	if _, err := transport.Relay(dst, src, may); err != nil {
		_ = dst.SetDeadline(past) // They may be closed: then all is over.
		_ = src.SetDeadline(past)
		return err
	}
	_ = dst.CloseWrite() // It may be closed by the other direction.
	return nil
}

var past = time.Unix(1, 0)
