//go:build amd64 || arm64

package seccomp

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
	"golang.org/x/sys/unix"
)

// A sender is a datagram socket of the tree and who uses it: one that was bound or used by
// somebody else, before an exec or in another process, does not act for that one.
type sender struct {
	cookie          uint64
	process, user   uint32
	program, groups string
}

func (w *worker) sender() sender {
	g := w.in.Groups // Nobody changes them.
	return sender{w.sock.cookie, w.in.ProcessID, w.in.UserID, w.in.AppID, unsafe.String((*byte)(unsafe.Pointer(unsafe.SliceData(g))), len(g)*int(unsafe.Sizeof(g[0])))}
}

// A datagram is what the ALE remembers of a sender: its flows.
type datagram struct {
	ale *ale.Socket

	mu    sync.Mutex // held while the ALE decides for this socket
	w     *worker    // whose call it is, for the implicit bind
	relay *relay     // by way of a SOCKS proxy; nil: none yet

	begun atomic.Int32 // flows that the table has not counted yet

	users int // the rest is under the table's lock
	flows int
	used  time.Time
}

// datagrams has them by sender. Nobody tells when a program closes a socket,
// so those that are not used for a while are forgotten: their flows have idled
// out by then (ALE-LAY-11), and a datagram begins a new one. So are any that are not in
// use when there are too many, or a program that makes sockets as fast as it can would
// fill the memory.
type datagrams struct {
	mu       sync.Mutex
	bySender map[sender]*datagram
	kept     int // sockets and flows
	swept    time.Time
}

const (
	datagramLife = 2 * time.Minute
	maxKept      = 1 << 17 // 2 kB each
)

// take returns the datagram of the call of w. give must follow.
func (ds *datagrams) take(w *worker) *datagram {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.kept >= maxKept {
		ds.makeRoom(time.Now())
	}
	of := w.sender()
	d := ds.bySender[of]
	if d == nil {
		ds.sweep(time.Now())
		in := w.in
		in.Local, in.Remote = w.sock.local, noAddr
		d = &datagram{ale: w.s.opts.ALE.NewSocket(in)}
		d.ale.OnImplicitBind(func(ctx context.Context, want netip.AddrPort) (netip.AddrPort, error) {
			return d.w.performBind(ctx, want)
		})
		d.ale.OnSource(func(ctx context.Context, to netip.AddrPort) (netip.Addr, error) { return d.w.sourceOf(ctx, to) })
		ds.bySender[of] = d
		ds.kept++
	}
	d.users++
	return d
}

func (ds *datagrams) give(d *datagram) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	d.users--
	d.used = time.Now()
	begun := int(d.begun.Swap(0))
	d.flows += begun
	ds.kept += begun
}

// sweep forgets what is old. It looks rarely.
func (ds *datagrams) sweep(now time.Time) {
	if now.Sub(ds.swept) < datagramLife/4 {
		return
	}
	ds.swept = now
	ds.forget(now, func(d *datagram) bool { return now.Sub(d.used) > datagramLife })
}

// makeRoom forgets any.
func (ds *datagrams) makeRoom(now time.Time) {
	ds.forget(now, func(*datagram) bool { return ds.kept > maxKept/8*7 })
}

// forget forgets those that are in use by nobody.
func (ds *datagrams) forget(now time.Time, which func(*datagram) bool) {
	var old []*datagram
	for of, d := range ds.bySender {
		if d.users == 0 && d.relay.idle(now) && which(d) {
			delete(ds.bySender, of)
			ds.kept -= 1 + d.flows
			old = append(old, d)
		}
	}
	if len(old) == 0 {
		return
	}
	go func() { // They ask the policy.
		for _, d := range old {
			d.close()
		}
	}()
}

// close ends all flows.
func (ds *datagrams) close() {
	for _, d := range ds.bySender {
		d.close()
	}
}

func (d *datagram) close() {
	d.ale.Close()
	d.relay.close()
}

// lend gives the ALE the socket of w while it decides.
func (d *datagram) lend(w *worker) (done func()) {
	d.mu.Lock()
	d.w = w
	return d.mu.Unlock
}

func (d *datagram) bind(w *worker, want netip.AddrPort) (netip.AddrPort, error) {
	defer d.lend(w)()
	return d.ale.Bind(w.s.ctx, want, w.bindTo)
}

// send decides a datagram and says where it goes. message is the beginning of
// its payload.
func (d *datagram) send(w *worker, remote netip.AddrPort, message []byte) (to netip.AddrPort, f *ale.Flow, err error) {
	defer d.lend(w)()
	if w.sock.protocol == unix.IPPROTO_UDP {
		to, f, created, err := d.ale.SendTo(w.s.ctx, remote)
		d.count(created)
		return to, f, err
	}
	m := ale.ICMPMessage{ID: w.sock.local.Port()} // The kernel fills it in.
	if len(message) >= 2 {
		m.Type, m.Code = message[0], message[1]
	}
	addr, f, created, err := d.ale.SendICMP(w.s.ctx, remote.Addr(), m)
	d.count(created)
	return netip.AddrPortFrom(addr, remote.Port()), f, err
}

func (d *datagram) count(created bool) {
	if created {
		d.begun.Add(1)
	}
}

// connectDatagram answers the connect() of a datagram socket. What is sent on it
// afterwards is not trapped, so the flow is decided now.
func (w *worker) connectDatagram(sa []byte) unix.Errno {
	remote, e := parseDatagram(w.sock.domain, sa)
	if e != 0 {
		return e
	}
	remote = w.concrete(sa, remote)
	w.in.Remote = remote
	d := w.s.datagrams.take(w)
	defer w.s.datagrams.give(d)
	to, flow, err := d.connect(w, remote)
	if err != nil {
		return w.done(err)
	}
	sa, proxy, err := w.towardDatagram(d, to)
	if err != nil {
		return w.done(err)
	}
	w.named(&w.s.names.peers, to != remote)
	if e := w.sysConnect(sa); e != 0 {
		return e
	}
	if proxy == nil {
		if flow, err = d.settle(w, flow); err != nil {
			_ = w.sysConnect(disconnect) // Before it has sent anything: the program has not heard of it.
			return w.done(err)
		}
	}
	peer := plainPeer(address(sa))
	w.s.endable(w, flow, func(its *socket) bool { return its.peer() == peer })
	if proxy == nil {
		return 0
	}
	return w.done(proxy.meet(d, w))
}

// settle decides a connected socket anew that does not come from where the kernel has said that it would:
// routes or its options changed meanwhile.
func (d *datagram) settle(w *worker, f *ale.Flow) (*ale.Flow, error) {
	if _, ok := f.Source(); !ok {
		return f, nil
	}
	local, e := w.local()
	if e != 0 {
		return nil, callErr(e)
	}
	w.came = local.Addr().WithZone("")
	_, f, err := d.send(w, w.in.Remote, echoRequest(w.in.Protocol))
	return f, err
}

// towardDatagram is toward for datagrams. Those for a SOCKS proxy go to a stand-in
// of their peer, which has to meet the socket.
func (w *worker) towardDatagram(d *datagram, to netip.AddrPort) (sa []byte, l *standIn, err error) {
	at := unmapped(to)
	if p := w.s.opts.Handoff.Find(at); p != nil && to != w.in.Remote {
		if l, err = d.relayed(w, at, p, w.in.Remote); err != nil {
			return nil, nil, err
		}
		to = l.addr
	}
	sa, err = w.toward(to)
	return sa, l, err
}

// connect decides the connect() of the socket (ALE-LAY-05), and its flow.
func (d *datagram) connect(w *worker, remote netip.AddrPort) (to netip.AddrPort, f *ale.Flow, err error) {
	unlock := d.lend(w)
	_, err = d.ale.Connect(w.s.ctx, remote, func(context.Context, ale.Target) (netip.AddrPort, error) {
		local, e := w.bound()
		return local, callErr(e)
	})
	unlock()
	if err != nil {
		return noAddr, nil, err
	}
	return d.send(w, remote, echoRequest(w.in.Protocol))
}

// echoRequest is what a ping socket sends.
func echoRequest(protocol uint8) []byte {
	if protocol == fwps.ProtocolICMPv6 {
		return []byte{128, 0}
	}
	return []byte{8, 0}
}

// parseDatagram reads an address as the send calls of UDP and ping sockets do,
// with their errors.
func parseDatagram(domain int32, sa []byte) (netip.AddrPort, unix.Errno) {
	switch f := family(sa); {
	case domain == unix.AF_INET6 && f == unix.AF_INET:
		a, e := parse(unix.AF_INET, sa) // The socket stays one of IPv6 (ALE-LAY-17).
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port()), e
	case domain == unix.AF_INET && f == unix.AF_UNSPEC && len(sa) >= sockaddr4Len:
		return parse(unix.AF_INET, append([]byte{unix.AF_INET, 0}, sa[2:]...))
	}
	return parse(domain, sa)
}
