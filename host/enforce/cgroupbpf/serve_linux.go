//go:build amd64 || arm64

package cgroupbpf

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/cgroupbpf/bpf"
	"github.com/calloutd/calloutd/host/enforce/internal/carry"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// serve listens for what needs an answer: in this process's own network namespace,
// and in those of the cgroup's programs.
func (a *Attachment) serve() error {
	if err := a.forgetHomes(); err != nil {
		return err
	}
	h, err := a.newHome(nil, 0)
	if err != nil {
		return err
	}
	if h.inode, err = inodeOf("/proc/thread-self/ns/net"); err != nil {
		return errors.Join(err, h.close())
	}
	a.ports = [2]uint16{h.port(ip4), h.port(ip6)}
	a.mu.Lock()
	a.homes[h.netns] = h
	a.mu.Unlock()
	a.wg.Go(func() { a.report(a.ctx) }) // It looks for homes: of what was refused while nobody was here, too.
	a.settle()
	a.meeting.Go(a.meet)
	return nil
}

func (h *home) accept(l *net.TCPListener) {
	a := h.a
	carry.Accept(a.ctx, l, func(err error) { a.log.Printf("cgroupbpf: %v", err) }, func(c *net.TCPConn) {
		a.carried.Add(1)
		a.wg.Go(func() {
			defer a.carried.Add(-1)
			h.answer(a.ctx, c)
		})
	})
}

// answer decides one connection and carries it.
func (h *home) answer(ctx context.Context, c *net.TCPConn) {
	a := h.a
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	r, err := h.take(c.RemoteAddr().(*net.TCPAddr).AddrPort())
	if err != nil {
		if carry.Established(c) { // Else its program is gone, and its record with it.
			a.log.Printf("cgroupbpf: connection from %s was not sent here by the kernel: %v", c.RemoteAddr(), err)
		}
		carry.Reset(c)
		return
	}
	in := incoming(r)
	if err := h.refuses(r, &in); err != nil {
		a.counts.Refused(err)
		a.opts.OnBlocked(enforce.Denial{PID: in.ProcessID, AppID: in.AppID, Remote: in.Remote, Err: err})
		carry.Reset(c)
		return
	}
	place := carry.User(r.User)
	if !a.places.Take(place) {
		a.counts.TooMany()
		why := fmt.Sprintf("as many connections are carried as may be (%d), or as many of user %d as are left for others", a.opts.MaxConnections, r.User)
		a.opts.OnBlocked(enforce.Denial{PID: in.ProcessID, AppID: in.AppID, Remote: in.Remote, Err: because(&in, why)})
		carry.Reset(c)
		return
	}
	defer a.places.Leave(place)
	if a.opts.Records != nil {
		in.Records = a.opts.Records(r.Cookie)
	}
	h.carrier.Carry(ctx, c, in)
}

// timedOut tells of a connection that ends because somebody did not answer.
func (a *Attachment) timedOut(in *fwps.Incoming, err error) {
	a.log.Printf("cgroupbpf: a connection of %s, process %d, to %s ends, as nobody answers: %v", in.AppID, in.ProcessID, in.Remote, err)
}

// take finds what the kernel noted about a connection, once.
func (h *home) take(from netip.AddrPort) (*bpf.RedirectRecord, error) {
	k := bpf.RedirectSource{Netns: h.netns, Address: from.Addr().As16(), Port: from.Port()}
	r := new(bpf.RedirectRecord)
	return r, h.a.objs.Waiting.LookupAndDelete(k, r)
}

func swap(port uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], port)
	return binary.BigEndian.Uint16(b[:])
}

// report tells of what the kernel decided. Programs may go on when it ends: what they
// did until then is told, but no more than the ring holds.
func (a *Attachment) report(ctx context.Context) {
	const some = 1000
	for n, left := 0, a.events.BufferSize()/binary.Size(bpf.RedirectRecord{}); left > 0; n++ {
		if ctx.Err() != nil {
			left--
		}
		if n%some == 0 || a.events.AvailableBytes() == 0 {
			a.tellUntold()
		}
		rec, err := a.events.Read()
		if err != nil {
			return // flushed
		}
		r := new(bpf.RedirectRecord)
		if _, err := binary.Decode(rec.RawSample, binary.NativeEndian, r); err != nil {
			a.log.Printf("cgroupbpf: event: %v", err)
			continue
		}
		if r.Held != 0 && a.comes(r) {
			continue // The connection goes on by itself.
		}
		in := incoming(r)
		if in.AppID == "" && in.ProcessID != 0 {
			in.AppID = command(r) // Nothing is decided by it any more.
		}
		if verdict(r.Verdict) == permit {
			a.ask(ctx, in)
			continue
		}
		a.opts.OnBlocked(enforce.Denial{PID: in.ProcessID, AppID: in.AppID, Remote: in.Remote, Err: a.why(r, &in)})
	}
}

// tellUntold says how many nothing else is said of: who is refused faster than this can be
// told could hide something among it.
func (a *Attachment) tellUntold() {
	var n uint64
	if err := a.objs.Untold.Lookup(uint32(0), &n); err != nil || n == 0 {
		return
	}
	if _, ok := a.untold.Pass(1); !ok && a.ctx.Err() == nil {
		return // They are counted until then.
	}
	_ = a.objs.Untold.Put(uint32(0), uint64(0)) // Else they are told again.
	a.opts.Logf("cgroupbpf: %d connects and datagrams more were refused, or permitted, than could be told", n)
}

// comes reports whether this process listens where a connection waits for it.
func (a *Attachment) comes(r *bpf.RedirectRecord) bool {
	if a.visit(r) != nil {
		return false
	}
	h := a.homeOf(r.Netns)
	return h != nil && h.port(familyOf(r)) == a.ports[familyOf(r)]
}

// familyOf is by which family a connection comes here.
func familyOf(r *bpf.RedirectRecord) int {
	if family(r.Family) == v6 {
		return ip6
	}
	return ip4
}

// ask takes a connect that has been permitted through the layers, for those who
// look on: they permit it, too.
func (a *Attachment) ask(ctx context.Context, in fwps.Incoming) {
	s := a.opts.ALE.NewSocket(in)
	defer s.Close()
	if in.Protocol != fwps.ProtocolTCP {
		_, _, _, _ = s.SendTo(ctx, in.Remote)
		return
	}
	if f, err := s.Connect(ctx, in.Remote, func(context.Context, ale.Target) (netip.AddrPort, error) { return in.Local, nil }); err == nil {
		f.Close()
	}
}

// why is the reason of a refusal in the kernel.
func (a *Attachment) why(r *bpf.RedirectRecord, in *fwps.Incoming) error {
	e := &ale.BlockedError{Remote: in.Remote, ProcessID: in.ProcessID, AppID: in.AppID}
	if verdict(r.Verdict) != block {
		e.Layer = fwpm.LayerALEAuthConnectV4.ForFamily(!in.Remote.Addr().Unmap().Is4())
		e.Why = a.whyNot(r, in)
		return e
	}
	a.mu.Lock()
	c := a.names[fwpm.FilterID(r.Filter)]
	a.mu.Unlock()
	e.Layer, e.Filter, e.Name, e.Rule, e.Why = c.layer, fwpm.FilterID(r.Filter), c.filterName, "ARB-01", "the policy blocks it"
	if r.Unseen != 0 {
		e.Why = "a " + unseen(r) + " can send where the policy blocks it, and where it does cannot be seen in a cgroup"
	}
	return e
}

// whyNot is why something that needs an answer gets none.
func (a *Attachment) whyNot(r *bpf.RedirectRecord, in *fwps.Incoming) string {
	h := a.homeOf(r.Netns)
	datagram := r.Protocol == fwps.ProtocolUDP
	switch {
	case r.Unseen == kernel:
		return "the kernel makes it for a connection of MPTCP, and does not say whose that is, which decides"
	case r.Unseen == routed:
		return "it has a source route, and would go there and not to where its socket sends"
	case r.Unseen == away:
		return "it is for this host, and would leave it by the device that its socket is bound to or names"
	case r.Unseen == onLink && datagram:
		return "only a callout or the program's path can decide it, and a datagram for an address of a link cannot be sent to calloutd: connect its socket, or use calloutd run"
	case r.Unseen == onLink:
		return "only a callout or the program's path can decide it, and the kernel does not say on which link its address is; use calloutd run"
	case r.Unseen == bound:
		return "only a callout or the program's path can decide it, and its socket is bound to a device, from which calloutd cannot be reached"
	case r.Unseen != 0:
		return "a " + unseen(r) + " can send where only a callout or the program's path can decide, and where it does cannot be seen in a cgroup"
	case !datagram && r.Protocol != fwps.ProtocolTCP:
		return "only a callout or the program's path can decide it, and that works in a cgroup for TCP and UDP; use calloutd run"
	case datagram && a.standsIn(h, in.Remote):
		return "calloutd uses the address for datagrams of others"
	case datagram && verdict(r.Verdict) == ask:
		return "only the program's path or the address that it leaves by can decide it, and that works in a cgroup for TCP; use calloutd run"
	case h == nil:
		if err := a.visit(r); err != nil {
			return fmt.Sprintf("only a callout or the program's path can decide it, and calloutd cannot listen in its network namespace: %v", err)
		}
		return "only a callout or the program's path can decide it, and calloutd was not yet in its network namespace: try again"
	case h.listen[familyOf(r)] == nil || datagram && h.datagrams[familyOf(r)] == nil:
		return "only a callout or the program's path can decide it, and that needs IPv6, which its network namespace does not have"
	case r.Held != 0:
		return "only a callout or the program's path can decide it, and where it waits for calloutd somebody else listens in its network namespace: try again"
	}
	return "only a callout or the program's path can decide it, and calloutd was not there, or the kernel has no room for more: try again"
}

// unseen is what a socket is called that was to be made.
func unseen(r *bpf.RedirectRecord) string {
	if uint8(r.Unseen) == raw {
		return fmt.Sprintf("raw socket of protocol %d", r.Protocol)
	}
	return fmt.Sprintf("socket of protocol %d", r.Protocol)
}

// standsIn reports whether an address is one of those that a program may not name.
func (a *Attachment) standsIn(h *home, to netip.AddrPort) bool {
	at := plain(to)
	return a.prefix.Contains(at.Addr()) || h != nil && at.Addr().Is4() && at.Addr().IsLoopback() && at.Port() == swap(h.datagrams[ip4].port())
}
