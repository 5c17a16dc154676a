//go:build amd64 || arm64

package cgroupbpf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
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
	"github.com/calloutd/calloutd/host/enforce/internal/routes"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/loglimit"
)

// An Attachment is a cgroup whose connections are decided.
type Attachment struct {
	opts      Options
	version   version
	objs      bpf.RedirectObjects
	events    *ringbuf.Reader
	strangers *ringbuf.Reader
	budget    *carry.Budget
	places    *carry.Shares // of the connections that are carried
	counts    carry.Counts
	routes    routes.Table  // of this process's own network namespace
	log       *loglimit.Log // what a program can cause
	untold    loglimit.Kind
	prefix    netip.Prefix // of the IPv6 addresses that stand in for others
	ports     [2]uint16    // of this process's own network namespace, see home.port
	ctx       context.Context
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	meeting   sync.WaitGroup

	carried   atomic.Int32 // connections that are under way
	byProgram atomic.Bool  // the policy has conditions on programs

	linking sync.Mutex
	links   []link.Link
	to      uint64 // the cgroup that they are of
	drained bool   // there are no more

	mu         sync.Mutex
	generation uint32
	cgroup     uint64                 // this process's, if it is decided here, too
	names      map[fwpm.FilterID]cell // filters that the kernel blocks by
	homes      map[uint64]*home       // by the cookies of their network namespaces

	visiting sync.Mutex
	absent   map[uint64]absence
}

// Attach begins to decide the cgroup's connections. Programs that others attached
// stay; all of them must permit.
func Attach(ctx context.Context, opts Options) (*Attachment, error) { return attach(ctx, opts, this) }

func attach(ctx context.Context, opts Options, v version) (_ *Attachment, err error) {
	if opts.ALE == nil || opts.Policy == nil {
		panic("cgroupbpf: Options.ALE and Options.Policy are required")
	}
	if opts.Logf == nil {
		opts.Logf = func(string, ...any) {}
	}
	if opts.OnBlocked == nil {
		opts.OnBlocked = func(enforce.Denial) {}
	}
	if _, err := cgroupID(opts.Cgroup); err != nil {
		return nil, fmt.Errorf("cgroupbpf: %w", err)
	}
	if err := enforce.CheckNumbers(); err != nil {
		return nil, &enforce.UnsupportedError{Name: "cgroup BPF", Why: err.Error()}
	}
	bounds, err := carry.Bound(opts.MaxConnections, opts.MaxDatagramFlows, descriptorsOfAFlow)
	if err != nil {
		return nil, fmt.Errorf("cgroupbpf: %w", err)
	}
	opts.MaxConnections, opts.MaxDatagramFlows = bounds.Connections, bounds.Flows
	ctx, cancel := context.WithCancel(ctx)
	a := &Attachment{opts: opts, log: loglimit.New(opts.Logf), version: v, prefix: newPrefix(), cgroup: nowhere, ctx: ctx, cancel: cancel, homes: map[uint64]*home{}, absent: map[uint64]absence{}, places: carry.NewShares(opts.MaxConnections),
		budget: carry.NewBudget(opts.MaxDatagramBytes, opts.MaxDatagramFlows, func(format string, args ...any) { opts.Logf("cgroupbpf: "+format, args...) })}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	if err := a.load(); err != nil {
		return nil, err
	}
	if err := a.serve(); err != nil {
		return nil, err
	}
	if err := a.Update(opts.Policy); err != nil {
		return nil, err
	}
	if err := a.attach(); err != nil {
		return nil, err
	}
	if err := a.meetItself(); err != nil {
		return nil, err
	}
	return a, a.remain()
}

const descriptorsOfAFlow = 2 // of datagrams: one, and the connection to a proxy

const nowhere = ^uint64(0) // no cgroup

// meetItself finds out whether this process is in the cgroup, and where: its next socket
// tells the kernel's part.
func (a *Attachment) meetItself() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var c bpf.RedirectConfig
	if err := a.objs.Configs.Lookup(uint32(0), &c); err != nil {
		return fmt.Errorf("cgroupbpf: %w", err)
	}
	c.Cgroup = 0
	if err := a.objs.Configs.Put(uint32(0), c); err != nil {
		return fmt.Errorf("cgroupbpf: %w", err)
	}
	if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err == nil {
		unix.Close(fd)
	}
	if err := a.objs.Configs.Lookup(uint32(0), &c); err != nil {
		return fmt.Errorf("cgroupbpf: %w", err)
	}
	if c.Cgroup == 0 {
		c.Cgroup = nowhere
	}
	a.cgroup = c.Cgroup
	return a.objs.Configs.Put(uint32(0), c)
}

// load loads the programs, or takes over the maps that an earlier process pinned.
func (a *Attachment) load() error {
	spec, err := a.version.load()
	if err != nil {
		return err
	}
	if !readsKernel() {
		withoutLinks(spec)
	}
	if err := describesItself(); err != nil {
		if rights() == nil {
			a.opts.Logf("cgroupbpf: the kernel does not describe itself, so it decides by the real users of programs, and not by those for whom they act: %v", err)
		}
		withoutTypes(spec)
	}
	var o ebpf.CollectionOptions
	if dir := a.pinDir(); dir != "" {
		if err := makePinDir(dir, a.opts.PinDir); err != nil {
			return err
		}
		o.Maps.PinPath = dir
		for _, m := range spec.Maps {
			m.Pinning = ebpf.PinByName
		}
	}
	if err := spec.LoadAndAssign(&a.objs, &o); err != nil {
		switch {
		case errors.Is(err, unix.EPERM), rights() != nil: // The library speaks of memory limits, which kernels with these programs do not have.
			return &enforce.UnsupportedError{Name: "cgroup BPF for this user", Why: unix.EPERM.Error() + ": " + enforce.MoreRights(capabilities)}
		case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.EINVAL):
			return &enforce.UnsupportedError{Name: "cgroup BPF", MinimumKernel: "5.18", Why: err.Error()}
		}
		return fmt.Errorf("cgroupbpf: load: %w", err)
	}
	if a.events, err = ringbuf.NewReader(a.objs.Events); err != nil {
		return fmt.Errorf("cgroupbpf: events: %w", err)
	}
	if a.strangers, err = ringbuf.NewReader(a.objs.Strangers); err != nil {
		return fmt.Errorf("cgroupbpf: events: %w", err)
	}
	return nil
}

// Datagrams are the figures of those that it carries.
func (a *Attachment) Datagrams() enforce.DatagramStats { return a.budget.Stats() }

// Connections are the figures of those of TCP that it carries, and of what it refused of UDP. What
// the kernel decides is not in them.
func (a *Attachment) Connections() enforce.ConnectionStats { return a.counts.Stats(a.places) }

// Close ends the deciding. Without Options.PinDir the programs are detached; with
// it they stay, and what needs an answer is refused until the next Attach.
func (a *Attachment) Close() error {
	a.cancel()
	errs := []error{a.leave(), a.detach()}
	if a.strangers != nil {
		errs = append(errs, a.strangers.Close())
	}
	a.meeting.Wait()
	a.visiting.Lock() // There are no visits after it.
	homes := a.allHomes()
	a.visiting.Unlock()
	for _, h := range homes {
		if a.leaves(h) {
			errs = append(errs, h.close())
		}
	}
	if a.events != nil {
		errs = append(errs, a.events.Flush()) // What was refused up to now is told.
	}
	a.wg.Wait()
	a.routes.Close()
	a.log.Close()
	if a.events != nil {
		errs = append(errs, a.events.Close())
	}
	return errors.Join(append(errs, a.objs.Close())...)
}

// leave tells what stays of the kernel's part that nobody listens.
func (a *Attachment) leave() error {
	if a.opts.PinDir == "" || a.generation == 0 {
		return nil
	}
	var c bpf.RedirectConfig
	if err := a.objs.Configs.Lookup(uint32(0), &c); err != nil || c.Daemon != uint32(os.Getpid()) {
		return err // Another process has taken over.
	}
	c.Daemon = 0
	return errors.Join(a.objs.Configs.Put(uint32(0), c), a.forgetHomes())
}

// detach takes the links away, for good.
func (a *Attachment) detach() error {
	a.linking.Lock()
	defer a.linking.Unlock()
	a.drained = true
	return a.unlink()
}

// unlink takes the links away. a.linking is held.
func (a *Attachment) unlink() error {
	var errs []error
	for _, l := range slices.Backward(a.links) { // What others need goes last.
		errs = append(errs, l.Close())
	}
	a.links = nil
	return errors.Join(errs...)
}

// Drain detaches the programs and waits until the connections that are carried, or wait to be
// accepted, have ended, or ctx has. Pinned programs stay.
func (a *Attachment) Drain(ctx context.Context) error {
	errs := []error{a.detach()}
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	arrived := time.Now().Add(arrival)
	for {
		select {
		case <-t.C: // Also before the first look: what the kernel has sent arrives.
			// In this order: what is accepted is carried before it is not awaited.
			if (!a.awaited() || time.Now().After(arrived)) && a.carried.Load() == 0 {
				return errors.Join(errs...)
			}
		case <-ctx.Done():
			return errors.Join(errs...)
		}
	}
}

// arrival is how long a connection that the kernel has sent here may take to be accepted. One that
// a full queue lost is not: its record stays behind.
const arrival = 5 * time.Second

// awaited reports whether connections that the kernel has sent here are not accepted yet. With
// pinned programs there may always be some, and they may be another process's.
func (a *Attachment) awaited() bool {
	if a.opts.PinDir != "" {
		return false
	}
	var at bpf.RedirectSource
	var r bpf.RedirectRecord
	for it := a.objs.Waiting.Iterate(); it.Next(&at, &r); {
		if r.Held == 0 { // Others may never come.
			return true
		}
	}
	return false
}
