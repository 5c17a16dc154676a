//go:build amd64 || arm64

package cgroupbpf

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/cgroupbpf/bpf"
	"github.com/calloutd/calloutd/host/enforce/internal/carry"
	"github.com/calloutd/calloutd/host/fwpm"
)

// An Attachment is a cgroup whose connections are decided.
type Attachment struct {
	opts      Options
	objs      bpf.RedirectObjects
	links     []link.Link
	events    *ringbuf.Reader
	listen    []*net.TCPListener
	datagrams *datagrams
	cancel    context.CancelFunc
	wg        sync.WaitGroup

	carrier carry.Carrier
	carried atomic.Int32 // connections that are under way

	mu         sync.Mutex
	generation uint32
	names      map[fwpm.FilterID]cell // filters that the kernel blocks by
}

// Attach begins to decide the cgroup's connections. Programs that others attached
// stay; all of them must permit.
func Attach(ctx context.Context, opts Options) (_ *Attachment, err error) {
	if opts.ALE == nil || opts.Policy == nil {
		panic("cgroupbpf: Options.ALE and Options.Policy are required")
	}
	if opts.Logf == nil {
		opts.Logf = func(string, ...any) {}
	}
	if opts.OnBlocked == nil {
		opts.OnBlocked = func(enforce.Denial) {}
	}
	if err := isCgroup(opts.Cgroup); err != nil {
		return nil, fmt.Errorf("cgroupbpf: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	a := &Attachment{opts: opts, cancel: cancel}
	a.carrier = carry.Carrier{ALE: opts.ALE, OnBlocked: opts.OnBlocked, Handoff: opts.Handoff}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	if err := a.load(); err != nil {
		return nil, err
	}
	if err := a.serve(ctx); err != nil {
		return nil, err
	}
	if err := a.Update(opts.Policy); err != nil {
		return nil, err
	}
	return a, a.attach()
}

// isCgroup says of other folders what the kernel calls a bad descriptor.
func isCgroup(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return &os.PathError{Op: "cgroup", Path: dir, Err: err}
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return fmt.Errorf("%s is in no cgroup v2 hierarchy: its folders are below /sys/fs/cgroup or /sys/fs/cgroup/unified", dir)
	}
	return nil
}

// load loads the programs, or takes over the maps that an earlier process pinned.
func (a *Attachment) load() error {
	spec, err := bpf.LoadRedirect()
	if err != nil {
		return err
	}
	var o ebpf.CollectionOptions
	if dir := a.pinDir(); dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("cgroupbpf: %w", err)
		}
		o.Maps.PinPath = dir
		for _, m := range spec.Maps {
			m.Pinning = ebpf.PinByName
		}
	}
	if err := spec.LoadAndAssign(&a.objs, &o); err != nil {
		if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) {
			return &enforce.UnsupportedError{Name: "cgroup BPF", MinimumKernel: "5.18", Why: err.Error() + " (it needs root)"}
		}
		return fmt.Errorf("cgroupbpf: load: %w", err)
	}
	if a.events, err = ringbuf.NewReader(a.objs.Events); err != nil {
		return fmt.Errorf("cgroupbpf: events: %w", err)
	}
	return nil
}

// pinDir is where this version of the programs is pinned for the cgroup.
func (a *Attachment) pinDir() string {
	if a.opts.PinDir == "" {
		return ""
	}
	h := sha256.New()
	h.Write(bpf.Object())
	h.Write([]byte(filepath.Clean(a.opts.Cgroup)))
	return filepath.Join(a.opts.PinDir, "calloutd-"+hex.EncodeToString(h.Sum(nil))[:16])
}

// attach hooks the programs in. Pinned ones are there already.
func (a *Attachment) attach() error {
	for name, h := range map[string]struct {
		at   ebpf.AttachType
		prog *ebpf.Program
	}{
		"connect4": {ebpf.AttachCGroupInet4Connect, a.objs.Connect4}, "connect6": {ebpf.AttachCGroupInet6Connect, a.objs.Connect6},
		"sendmsg4": {ebpf.AttachCGroupUDP4Sendmsg, a.objs.Sendmsg4}, "sendmsg6": {ebpf.AttachCGroupUDP6Sendmsg, a.objs.Sendmsg6},
		"recvmsg4": {ebpf.AttachCGroupUDP4Recvmsg, a.objs.Recvmsg4}, "recvmsg6": {ebpf.AttachCGroupUDP6Recvmsg, a.objs.Recvmsg6},
		"getpeername4": {ebpf.AttachCgroupInet4GetPeername, a.objs.Getpeername4}, "getpeername6": {ebpf.AttachCgroupInet6GetPeername, a.objs.Getpeername6},
		"socket_states": {ebpf.AttachCGroupSockOps, a.objs.SocketStates},
	} {
		pin := ""
		if dir := a.pinDir(); dir != "" {
			pin = filepath.Join(dir, "link-"+name)
			if l, err := link.LoadPinnedLink(pin, nil); err == nil {
				a.links = append(a.links, l)
				continue
			}
		}
		l, err := link.AttachCgroup(link.CgroupOptions{Path: a.opts.Cgroup, Attach: h.at, Program: h.prog})
		if err != nil {
			return fmt.Errorf("cgroupbpf: attach %s to %s: %w", name, a.opts.Cgroup, err)
		}
		a.links = append(a.links, l)
		if pin != "" {
			if err := l.Pin(pin); err != nil {
				return fmt.Errorf("cgroupbpf: pin %s: %w", name, err)
			}
		}
	}
	return nil
}

// Close ends the deciding. Without Options.PinDir the programs are detached; with
// it they stay, and what needs an answer is refused until the next Attach.
func (a *Attachment) Close() error {
	a.cancel()
	var errs []error
	for _, l := range a.links {
		errs = append(errs, l.Close())
	}
	for _, l := range a.listen {
		errs = append(errs, l.Close())
	}
	if a.datagrams != nil {
		errs = append(errs, a.datagrams.udp.Close())
	}
	if a.events != nil {
		errs = append(errs, a.events.Flush()) // What was refused up to now is told.
	}
	a.wg.Wait()
	if a.events != nil {
		errs = append(errs, a.events.Close())
	}
	return errors.Join(append(errs, a.objs.Close())...)
}

// Drain detaches the programs and waits until the connections that are carried have
// ended, or ctx has. Pinned programs stay.
func (a *Attachment) Drain(ctx context.Context) error {
	var errs []error
	for _, l := range a.links {
		errs = append(errs, l.Close())
	}
	a.links = nil
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-t.C: // Also before the first look: what the kernel has sent arrives.
			if a.carried.Load() == 0 {
				return errors.Join(errs...)
			}
		case <-ctx.Done():
			return errors.Join(errs...)
		}
	}
}

// Detach takes pinned programs and maps away and closes.
func (a *Attachment) Detach() error {
	var errs []error
	for _, l := range a.links {
		if err := l.Unpin(); err != nil && a.opts.PinDir != "" {
			errs = append(errs, err)
		}
	}
	err := a.Close()
	if dir := a.pinDir(); dir != "" {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(append(errs, err)...)
}

// Update gives the kernel its part of another policy. A connect sees the old one
// or the new one: the cells of both are there, and one word chooses.
func (a *Attachment) Update(p *fwpm.Policy) error {
	t, err := newTable(p)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var old bpf.RedirectConfig
	if err := a.objs.Configs.Lookup(uint32(0), &old); err != nil {
		return fmt.Errorf("cgroupbpf: %w", err)
	}
	next := old.Generation + 1
	if err := a.clear(next & 1); err != nil { // what was left of the one before the old one
		return err
	}
	if err := a.write(t, next&1); err != nil {
		return err
	}
	c := bpf.RedirectConfig{Generation: next, Daemon: uint32(os.Getpid()), Netns: netnsCookie(), Port4: a.port(0), Port6: a.port(1), Datagrams: a.datagrams.port()}
	if a.opts.AskPermitted {
		c.Tell = 1
	}
	if err := a.objs.Configs.Put(uint32(0), c); err != nil {
		return fmt.Errorf("cgroupbpf: %w", err)
	}
	a.generation, a.names = next, map[fwpm.FilterID]cell{}
	for _, c := range t.cells {
		if c.verdict == block {
			a.names[c.filter] = c
		}
	}
	return nil
}

// write stores a table under the lowest bit of a generation.
func (a *Attachment) write(t *table, parity uint32) error {
	keys, classes := make([]uint32, 1<<16), t.ports[:]
	for port := range keys {
		keys[port] = parity<<16 | uint32(port)
	}
	if _, err := a.objs.PortClasses.BatchUpdate(keys, classes, nil); err != nil {
		return fmt.Errorf("cgroupbpf: port classes: %w", err)
	}
	for uid, class := range t.users {
		if err := a.objs.UserClasses.Put(bpf.RedirectUserKey{Generation: parity, User: uid}, class); err != nil {
			return fmt.Errorf("cgroupbpf: user classes: %w", err)
		}
	}
	for _, c := range t.cells {
		k := bpf.RedirectCellKey{Prefixlen: uint32(64 + c.prefix.Bits()), Generation: uint8(parity), Family: uint8(c.family),
			Protocol: c.protocol, PortClass: c.portClass, UserClass: c.userClass, Address: c.prefix.Addr().As16()}
		if err := a.objs.Cells.Put(k, bpf.RedirectCell{Verdict: uint32(c.verdict), Filter: uint64(c.filter)}); err != nil {
			return fmt.Errorf("cgroupbpf: cells: %w", err)
		}
	}
	return nil
}

// clear deletes the cells and users of one parity.
func (a *Attachment) clear(parity uint32) error {
	var cells []bpf.RedirectCellKey
	var users []bpf.RedirectUserKey
	var k bpf.RedirectCellKey
	var v bpf.RedirectCell
	for it := a.objs.Cells.Iterate(); it.Next(&k, &v); {
		if uint32(k.Generation) == parity {
			cells = append(cells, k)
		}
	}
	var u bpf.RedirectUserKey
	var class uint16
	for it := a.objs.UserClasses.Iterate(); it.Next(&u, &class); {
		if u.Generation == parity {
			users = append(users, u)
		}
	}
	for _, k := range cells {
		if err := a.objs.Cells.Delete(k); err != nil {
			return fmt.Errorf("cgroupbpf: cells: %w", err)
		}
	}
	for _, u := range users {
		if err := a.objs.UserClasses.Delete(u); err != nil {
			return fmt.Errorf("cgroupbpf: user classes: %w", err)
		}
	}
	return nil
}

// port is where a listener is, in network order; zero if it is not there.
func (a *Attachment) port(i int) uint16 {
	if i >= len(a.listen) {
		return 0
	}
	at := a.listen[i].Addr().(*net.TCPAddr).AddrPort().Port()
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], at)
	return binary.NativeEndian.Uint16(b[:])
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

var loopbacks = []string{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0).String(), netip.AddrPortFrom(netip.IPv6Loopback(), 0).String()}
