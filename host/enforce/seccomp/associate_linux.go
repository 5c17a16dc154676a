//go:build amd64 || arm64

package seccomp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/calloutd/calloutd/host/enforce/handoff"
	"github.com/calloutd/calloutd/host/enforce/internal/carry"
	"golang.org/x/sys/unix"
)

// A relay carries the datagrams of one socket of the tree by way of a SOCKS proxy.
// Nobody stops what a program receives, so the proxy's header is put on and taken
// off in between: for each peer there is a stand-in on this host, which the
// program's datagrams go to and the answers come from.
type relay struct {
	assoc *handoff.Association
	used  carry.Used // for a datagram
	wg    sync.WaitGroup

	mu       sync.Mutex
	standIns map[netip.AddrPort]*standIn // by peer
}

// A standIn is a peer's on this host. It is connected to the program's socket, and
// takes nothing from anybody else.
type standIn struct {
	conn   *net.UDPConn
	addr   netip.AddrPort
	client atomic.Pointer[netip.AddrPort] // the program's end
}

// relayed returns the stand-in of a peer behind a SOCKS proxy, for the socket of w.
func (d *datagram) relayed(w *worker, at netip.AddrPort, p *handoff.Proxy, peer netip.AddrPort) (*standIn, error) {
	if w.sock.protocol != unix.IPPROTO_UDP {
		return nil, errors.New("seccomp: the proxy at " + at.String() + " takes no pings")
	}
	defer d.lend(w)()
	if d.relay == nil || d.relay.over() {
		w.s.relieve(w) // The proxy may take its time.
		ctx, cancel := context.WithTimeout(w.s.ctx, w.s.opts.HandoffTime)
		defer cancel()
		assoc, err := handoff.Associate(ctx, at, p)
		if err != nil {
			return nil, err
		}
		d.relay.close()
		d.relay = &relay{assoc: assoc, standIns: map[netip.AddrPort]*standIn{}}
		d.relay.wg.Go(d.relay.receive)
	}
	return d.relay.standIn(unmapped(peer))
}

func (r *relay) over() bool {
	select {
	case <-r.assoc.Ended():
		return true
	default:
		return false
	}
}

// idle reports whether nothing was carried for a while. A nil relay is.
func (r *relay) idle(now time.Time) bool {
	return r == nil || r.used.Idle(now) > datagramLife
}

// close ends the relay. A nil one is none.
func (r *relay) close() {
	if r == nil {
		return
	}
	r.assoc.Close()
	r.wg.Wait()
}

func (r *relay) standIn(peer netip.AddrPort) (*standIn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.standIns[peer]; l != nil {
		return l, nil
	}
	loopback := netip.IPv6Loopback()
	if peer.Addr().Is4() {
		loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0)))
	if err != nil {
		return nil, err
	}
	l := &standIn{conn: c, addr: c.LocalAddr().(*net.UDPAddr).AddrPort()}
	r.standIns[peer] = l
	r.used.Note()
	r.wg.Go(func() { r.send(l, peer) })
	return l, nil
}

// meet tells a stand-in which the program's socket is, before the program's first
// datagram or right after its connect().
func (l *standIn) meet(d *datagram, w *worker) error {
	defer d.lend(w)()
	local, e := w.local()
	if e != 0 {
		return callErr(e)
	}
	if local.Addr().IsUnspecified() {
		local = netip.AddrPortFrom(l.addr.Addr(), local.Port())
	}
	if was := l.client.Load(); was != nil && *was == local {
		return nil
	}
	raw, err := l.conn.SyscallConn()
	if err != nil {
		return err
	}
	var b [sockaddr6Len]byte
	domain := int32(unix.AF_INET6)
	if l.addr.Addr().Is4() {
		domain = unix.AF_INET
	}
	sa := putSockaddr(b[:], domain, local)
	if err := raw.Control(func(fd uintptr) { e = sysConnect(int(fd), sa) }); err != nil {
		return err
	}
	l.client.Store(&local)
	return callErr(e)
}

// send carries what the program sends, until the association or the stand-in ends.
// It ends both: answers could not be told apart from another's.
func (r *relay) send(l *standIn, peer netip.AddrPort) {
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-r.assoc.Ended():
		case <-stop:
		}
		l.conn.Close()
	}()
	b := make([]byte, maxDatagram)
	for {
		n, from, err := l.conn.ReadFromUDPAddrPort(b)
		if client := l.client.Load(); err == nil && (client == nil || unmapped(from) != *client) {
			continue // It came before they had met.
		}
		if errors.Is(err, unix.ECONNREFUSED) {
			continue // The program does not listen at the moment, or any more: idle ends it.
		}
		if err != nil || errors.Is(r.assoc.WriteTo(b[:n], peer), net.ErrClosed) {
			return // What fails otherwise, as one that is too large with the header, is lost alone.
		}
		r.used.Note()
	}
}

// receive hands the answers to the stand-ins of their senders.
func (r *relay) receive() {
	b := make([]byte, maxDatagram)
	for {
		payload, from, err := r.assoc.ReadFrom(b)
		if err != nil {
			go r.assoc.Close() // Its end is waited for by who calls close.
			return
		}
		r.mu.Lock()
		l := r.standIns[from]
		r.mu.Unlock()
		if l == nil {
			continue // Nobody asked it, or nobody sent it.
		}
		_, _ = l.conn.Write(payload) // Datagrams get lost.
		r.used.Note()
	}
}
