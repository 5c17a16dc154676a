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
	"runtime"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/cgroupbpf/bpf"
	"github.com/calloutd/calloutd/host/enforce/internal/carry"
)

// A home is where this process listens in one network namespace: for the programs in
// it, whose loopback is there.
type home struct {
	a       *Attachment
	netns   uint64 // cookie
	inode   uint64
	space   *os.File // nil for the process's own
	carrier carry.Carrier
	cancel  context.CancelFunc // of its datagrams

	// By family, nil without one.
	listen    [2]*net.TCPListener
	datagrams [2]*datagrams
	standIns  *claim
}

const ip4, ip6 = 0, 1

// newHome listens in a namespace, and closes space if it cannot. Without IPv6 there,
// what needs an answer by it is refused.
func (a *Attachment) newHome(space *os.File) (_ *home, err error) {
	h := &home{a: a, space: space, carrier: carry.Carrier{ALE: a.opts.ALE, OnBlocked: a.opts.OnBlocked, Handoff: a.opts.Handoff}}
	if space != nil {
		h.carrier.Dial = h.dial
	}
	ctx, cancel := context.WithCancel(a.ctx)
	h.cancel = cancel
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	return h, h.do(func() error {
		if h.netns = netnsCookie(); space != nil && !loopbackIsUp() {
			return errors.New("its loopback is down")
		}
		for family := range h.listen {
			if err := h.open(ctx, family); err != nil && family == ip4 {
				return err
			} else if err != nil {
				a.opts.Logf("cgroupbpf: no IPv6: %v", err)
			}
		}
		return nil
	})
}

func loopbackIsUp() bool {
	lo, err := netlink.LinkByName("lo")
	return err == nil && lo.Attrs().Flags&net.FlagUp != 0
}

// open listens for one family.
func (h *home) open(ctx context.Context, family int) error {
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(ctx, "tcp", loopbacks[family])
	if err != nil {
		return fmt.Errorf("cgroupbpf: %w", err)
	}
	h.listen[family] = l.(*net.TCPListener)
	h.datagrams[family], err = h.newDatagrams(ctx, family)
	return err
}

// begin takes what the kernel sends, and says where to.
func (h *home) begin() error {
	for family := range h.listen {
		if l := h.listen[family]; l != nil {
			h.a.wg.Go(func() { h.accept(l) })
		}
		if d := h.datagrams[family]; d != nil {
			h.a.wg.Go(d.receive)
		}
	}
	return h.tell()
}

// tell gives the kernel the ports.
func (h *home) tell() error {
	v := bpf.RedirectHome{Tcp4: h.port(ip4), Tcp6: h.port(ip6), Udp4: h.datagrams[ip4].port(), Udp6: h.datagrams[ip6].port()}
	if err := h.a.objs.Homes.Put(h.netns, v); err != nil {
		return fmt.Errorf("cgroupbpf: where calloutd listens: %w", err)
	}
	return nil
}

// close ends the listening. What is carried goes on, but for datagrams.
func (h *home) close() error {
	h.cancel()
	var errs []error
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
	return within(h.space, f)
}

func within(space *os.File, f func() error) error {
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(space.Fd()), unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			done <- os.NewSyscallError("setns", err)
			return
		}
		err := f()
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil { // Else the thread ends with it.
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// dial connects from where the program is, unless a callout redirected it: the proxies
// that it names are here.
func (h *home) dial(ctx context.Context, d *net.Dialer, to netip.AddrPort, redirected bool) (c net.Conn, err error) {
	if redirected {
		return d.DialContext(ctx, "tcp", to.String())
	}
	err = h.do(func() error {
		c, err = d.DialContext(ctx, "tcp", to.String())
		return err
	})
	return c, err
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

var loopbacks = [2]string{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0).String(), netip.AddrPortFrom(netip.IPv6Loopback(), 0).String()}
