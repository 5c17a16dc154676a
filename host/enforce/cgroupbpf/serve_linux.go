//go:build amd64 || arm64

package cgroupbpf

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/cgroupbpf/bpf"
	"github.com/calloutd/calloutd/host/enforce/internal/carry"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// serve listens for connections that need an answer. A host without IPv6 loopback
// has only the first listener; v6 connects that need an answer are refused there.
func (a *Attachment) serve(ctx context.Context) error {
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false)
	for i, at := range loopbacks {
		l, err := lc.Listen(ctx, "tcp", at)
		if err != nil && i == 0 {
			return fmt.Errorf("cgroupbpf: %w", err)
		}
		if err != nil {
			a.opts.Logf("cgroupbpf: no IPv6: %v", err)
			continue
		}
		a.listen = append(a.listen, l.(*net.TCPListener))
		a.wg.Go(func() { a.accept(ctx, l.(*net.TCPListener)) })
	}
	a.wg.Go(func() { a.report(ctx) })
	return a.serveDatagrams(ctx)
}

func (a *Attachment) accept(ctx context.Context, l *net.TCPListener) {
	for {
		c, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			a.opts.Logf("cgroupbpf: accept: %v", err)
			continue
		}
		a.carried.Add(1)
		a.wg.Go(func() {
			defer a.carried.Add(-1)
			a.answer(ctx, c)
		})
	}
}

// answer decides one connection and carries it.
func (a *Attachment) answer(ctx context.Context, c *net.TCPConn) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	r, err := a.take(c.RemoteAddr().(*net.TCPAddr).AddrPort())
	if err != nil {
		if established(c) { // Else its program is gone, and its record with it.
			a.opts.Logf("cgroupbpf: connection from %s was not sent here by the kernel: %v", c.RemoteAddr(), err)
		}
		carry.Reset(c)
		return
	}
	in := incoming(r)
	if a.opts.Records != nil {
		in.Records = a.opts.Records(r.Cookie)
	}
	a.carrier.Carry(ctx, c, in)
}

// established reports whether the other end is still there.
func established(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	const tcpEstablished = 1
	there := false
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		there = err == nil && info.State == tcpEstablished
	})
	return err == nil && there
}

// take finds what the kernel noted about a connection, once.
func (a *Attachment) take(from netip.AddrPort) (*bpf.RedirectRecord, error) {
	k := bpf.RedirectSource{Netns: netnsCookie(), Address: from.Addr().As16(), Port: from.Port()}
	r := new(bpf.RedirectRecord)
	return r, a.objs.Waiting.LookupAndDelete(k, r)
}

// incoming is what is known about a connect.
func incoming(r *bpf.RedirectRecord) fwps.Incoming {
	to := netip.AddrFrom16(r.Address)
	if family(r.Family) == v4 {
		to = to.Unmap()
	}
	local := netip.IPv6Unspecified()
	if to.Is4() {
		local = netip.IPv4Unspecified()
	}
	app, _ := os.Readlink("/proc/" + strconv.Itoa(int(r.Process)) + "/exe") // Gone: no path, and no filter by path matches.
	return fwps.Incoming{Protocol: r.Protocol, ProcessID: r.Process, UserID: r.User, UserKnown: true, AppID: app, EndpointID: r.Cookie,
		Local: netip.AddrPortFrom(local, 0), Remote: netip.AddrPortFrom(to, swap(r.Port))}
}

func swap(port uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], port)
	return binary.BigEndian.Uint16(b[:])
}

// report tells of what the kernel decided.
func (a *Attachment) report(ctx context.Context) {
	for {
		rec, err := a.events.Read()
		if err != nil {
			return // flushed
		}
		r := new(bpf.RedirectRecord)
		if _, err := binary.Decode(rec.RawSample, binary.NativeEndian, r); err != nil {
			a.opts.Logf("cgroupbpf: event: %v", err)
			continue
		}
		in := incoming(r)
		if verdict(r.Verdict) == permit {
			a.ask(ctx, in)
			continue
		}
		a.opts.OnBlocked(enforce.Denial{PID: in.ProcessID, AppID: in.AppID, Remote: in.Remote, Err: a.why(r, &in)})
	}
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
		e.Why = "only a callout or the program's path can decide it, and that works in a cgroup for TCP, and for UDP of IPv4, in calloutd's own network namespace; use calloutd run"
		return e
	}
	a.mu.Lock()
	c := a.names[fwpm.FilterID(r.Filter)]
	a.mu.Unlock()
	e.Layer, e.Filter, e.Name, e.Rule, e.Why = c.layer, fwpm.FilterID(r.Filter), c.filterName, "ARB-01", "the policy blocks it"
	return e
}
