//go:build amd64 || arm64

package cgroupbpf

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/cgroupbpf/bpf"
	"github.com/calloutd/calloutd/host/enforce/internal/carry"
	"github.com/calloutd/calloutd/host/enforce/internal/netspace"
	"github.com/calloutd/calloutd/host/enforce/internal/routes"
)

// A home is where this process listens in one network namespace: for the programs in
// it, whose loopback is there.
type home struct {
	a       *Attachment
	netns   uint64 // cookie
	inode   uint64
	space   *os.File     // nil for the process's own
	routes  routes.Table // of space
	carrier carry.Carrier
	cancel  context.CancelFunc // of its datagrams

	// By family, nil without one.
	listen    [2]*net.TCPListener
	datagrams [2]*datagrams
	standIns  *claim
}

const ip4, ip6 = 0, 1

// errOther is a namespace that was not meant.
var errOther = errors.New("it is another network namespace")

// newHome listens in a namespace, that with the cookie unless this is 0, and closes space
// if it cannot. Each port is told at once, those first that a program waits for whom
// nobody else may make wait. Without IPv6 there, what needs an answer by it is refused.
func (a *Attachment) newHome(space *os.File, netns uint64) (_ *home, err error) {
	h := &home{a: a, space: space, carrier: carry.Carrier{ALE: a.opts.ALE, OnBlocked: a.opts.OnBlocked, Handoff: a.opts.Handoff, OnTimeout: a.timedOut, Counts: &a.counts}}
	h.carrier.Source = h.source
	if space != nil {
		h.carrier.Dial, h.routes.Namespace = h.dial, int(space.Fd())
	}
	ctx, cancel := context.WithCancel(a.ctx)
	h.cancel = cancel
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	return h, h.do(func() error {
		if h.netns = netnsCookie(); netns != 0 && h.netns != netns {
			return errOther
		}
		if space != nil && !loopbackIsUp() {
			return errors.New("its loopback is down")
		}
		if err := h.open(ctx, ip4); err != nil {
			return err
		}
		if err := h.open(ctx, ip6); err != nil {
			a.log.Printf("cgroupbpf: no IPv6: %v", err)
		}
		return h.tell(true)
	})
}

// loopbackIsUp does not ask netlink, which waits for whatever goes on there.
func loopbackIsUp() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	return err == nil && unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, lo) == nil && lo.Uint16()&unix.IFF_UP != 0
}

// open listens for one family.
func (h *home) open(ctx context.Context, family int) error {
	l, err := h.a.listen(ctx, family)
	if err != nil {
		return fmt.Errorf("cgroupbpf: %w", err)
	}
	h.listen[family] = l.(*net.TCPListener)
	h.a.wg.Go(func() { h.accept(l.(*net.TCPListener)) })
	if err := h.tell(false); err != nil {
		return err
	}
	if h.datagrams[family], err = h.newDatagrams(ctx, family); err != nil {
		return err
	}
	h.a.wg.Go(h.datagrams[family].receive)
	return h.tell(false)
}

// listen takes the same port in each namespace, if it is free: connections are on their
// way there that were begun before this process came.
func (a *Attachment) listen(ctx context.Context, family int) (net.Listener, error) {
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false)
	at := netip.AddrPortFrom(loopbacks[family], swap(a.ports[family]))
	l, err := lc.Listen(ctx, "tcp", at.String())
	if errors.Is(err, unix.EADDRINUSE) {
		return lc.Listen(ctx, "tcp", netip.AddrPortFrom(loopbacks[family], 0).String())
	}
	return l, err
}

// tell gives the kernel the ports; whole: there will be no others.
func (h *home) tell(whole bool) error {
	v := bpf.RedirectHome{Asked: monotonic(), Whole: map[bool]uint64{true: 1}[whole], Tcp4: h.port(ip4), Tcp6: h.port(ip6), Udp4: h.datagrams[ip4].port(), Udp6: h.datagrams[ip6].port()}
	if err := h.a.objs.Homes.Put(h.netns, v); err != nil {
		return fmt.Errorf("cgroupbpf: where calloutd listens: %w", err)
	}
	return nil
}

// close ends the listening. What is carried goes on, but for datagrams.
func (h *home) close() error {
	h.cancel()
	var errs []error
	if now := (bpf.RedirectHome{}); h.listen[ip4] != nil && h.a.objs.Homes.Lookup(h.netns, &now) == nil && now.Tcp4 == h.port(ip4) {
		errs = append(errs, h.a.objs.Homes.Delete(h.netns)) // It is not another process's.
	}
	for family := range h.listen {
		if l := h.listen[family]; l != nil {
			errs = append(errs, l.Close())
		}
		if d := h.datagrams[family]; d != nil {
			errs = append(errs, d.udp.Close())
		}
	}
	if h.standIns != nil {
		errs = append(errs, h.do(h.standIns.remove))
	}
	h.routes.Close()
	if h.space != nil {
		errs = append(errs, h.space.Close())
	}
	return errors.Join(errs...)
}

func (a *Attachment) allHomes() []*home {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Values(a.homes))
}

// forgetHomes takes away what the process before this one has left.
func (a *Attachment) forgetHomes() error {
	var all []uint64
	var netns uint64
	var v bpf.RedirectHome
	it := a.objs.Homes.Iterate()
	for it.Next(&netns, &v) {
		all = append(all, netns)
	}
	errs := []error{it.Err()}
	for _, netns := range all {
		if err := a.objs.Homes.Delete(netns); !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// do runs f on a thread in the namespace: sockets that f makes are there.
func (h *home) do(f func() error) error {
	if h.space == nil {
		return f()
	}
	return netspace.Within(int(h.space.Fd()), f)
}

// port is where connections of a family are taken, in network order; zero if they are not.
func (h *home) port(family int) uint16 {
	if h.listen[family] == nil {
		return 0
	}
	return swap(h.listen[family].Addr().(*net.TCPAddr).AddrPort().Port())
}

func netnsCookie() uint64 {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	cookie, _ := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE) // Zero finds no record: refused.
	return cookie
}

var loopbacks = [2]netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
