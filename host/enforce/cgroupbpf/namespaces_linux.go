//go:build amd64 || arm64

package cgroupbpf

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/cgroupbpf/bpf"
)

// settle listens in the network namespaces that programs of the cgroup are in.
func (a *Attachment) settle() {
	a.visiting.Lock() // Else meet could be in one at the same time.
	defer a.visiting.Unlock()
	pids, err := a.processes()
	if err != nil {
		a.opts.Logf("cgroupbpf: what needs an answer is refused in network namespaces of its own at first: %v", err)
	}
	for _, pid := range pids {
		if err := a.enter(pid, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			a.opts.Logf("cgroupbpf: what needs an answer is refused in the network namespace of process %d: %v", pid, err)
		}
	}
}

// meet listens in each network namespace that the kernel's part asks about.
func (a *Attachment) meet() {
	for {
		rec, err := a.strangers.Read()
		if err != nil {
			return // closed
		}
		r := new(bpf.RedirectRecord)
		if _, err := binary.Decode(rec.RawSample, binary.NativeEndian, r); err != nil {
			a.log.Printf("cgroupbpf: event: %v", err)
			continue
		}
		_ = a.visit(r) // Who is refused is told why.
	}
}

// An absence is why there is no home in a namespace.
type absence struct {
	why  error
	when time.Time
}

// again is when it is worth to try again. The kernel's part waits as long.
const again = time.Second

// visit listens in the namespace of a record, unless that has failed just now.
func (a *Attachment) visit(r *bpf.RedirectRecord) error {
	a.visiting.Lock()
	defer a.visiting.Unlock()
	if h := a.homeOf(r.Netns); h != nil {
		return h.tell(true)
	}
	if a.ctx.Err() != nil {
		return errors.New("it is ending")
	}
	if x, failed := a.absent[r.Netns]; failed && time.Since(x.when) < again {
		return x.why
	}
	err := a.find(r)
	delete(a.absent, r.Netns)
	if err != nil {
		a.forgetStrangers()
	}
	if err != nil && verdict(r.Verdict) != permit { // A socket alone waits for nothing: its loopback may be up when it connects.
		a.absent[r.Netns] = absence{err, time.Now()}
		_ = a.objs.Homes.Update(r.Netns, bpf.RedirectHome{Asked: monotonic(), Whole: 1}, ebpf.UpdateExist) // Else who waits waits in vain.
	}
	return err
}

var errNowhere = errors.New("no process of the cgroup is in it")

// find listens in the namespace of a record: of a thread of its process, or of another
// one of the cgroup.
func (a *Attachment) find(r *bpf.RedirectRecord) error {
	pids, unread := a.processes()
	for _, pid := range append([]int{int(r.Process)}, pids...) {
		err := a.enter(pid, r.Netns)
		if a.homeOf(r.Netns) != nil {
			return nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if unread != nil {
		return unread
	}
	return errNowhere
}

// enter listens in the namespaces of a process's threads that are not known yet: in
// that with the cookie, in all if that is 0.
func (a *Attachment) enter(pid int, netns uint64) error {
	tasks := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(tasks)
	if err != nil {
		return err
	}
	tried := map[uint64]bool{}
	var errs []error
	for _, thread := range threads {
		path := filepath.Join(tasks, thread.Name(), "ns/net")
		inode, err := inodeOf(path)
		if err != nil || tried[inode] || a.known(inode) {
			continue
		}
		tried[inode] = true
		errs = append(errs, a.join(path, pid, inode, netns))
	}
	return errors.Join(errs...)
}

// join listens in a namespace, if it is that with the cookie or this is 0, as long as
// there are processes of the cgroup in it.
func (a *Attachment) join(path string, pid int, inode, netns uint64) error {
	space, err := os.Open(path)
	if err != nil {
		return err
	}
	h, err := a.newHome(space, netns)
	if errors.Is(err, errOther) {
		return nil
	}
	if err != nil {
		return err
	}
	h.inode = inode
	a.mu.Lock()
	a.homes[h.netns] = h
	a.mu.Unlock()
	a.wg.Go(func() { h.stay(pid) })
	return nil
}

// stay leaves the namespace, which lives as long as somebody is in it, when no process of
// the cgroup is any more. It stays as long as nobody knows, as without descriptors.
func (h *home) stay(pid int) {
	for pid != 0 {
		next, err := pid, ended(h.a.ctx, pid)
		if err == nil {
			next, err = h.a.inhabitant(h.inode)
		}
		if err == nil {
			pid = next
			continue
		}
		select {
		case <-time.After(again):
		case <-h.a.ctx.Done():
			return
		}
	}
	if h.a.leaves(h) {
		if err := h.close(); err != nil {
			h.a.log.Printf("cgroupbpf: leaving a network namespace: %v", err)
		}
	}
}

// leaves reports whether the caller is to close a home: nobody else does.
func (a *Attachment) leaves(h *home) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, there := a.homes[h.netns]
	delete(a.homes, h.netns)
	return there
}

// ended returns when a process has ended; with an error, if that cannot be waited for or
// ctx has.
func ended(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, unix.O_NONBLOCK)
	if err == unix.ESRCH {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	defer context.AfterFunc(ctx, func() { f.Close() })()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool { // It fails when f is closed.
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err == nil && n > 0
	})
}

// inhabitant is a process of the cgroup that is in a namespace, 0 if there is none.
func (a *Attachment) inhabitant(inode uint64) (int, error) {
	pids, err := a.processes()
	for _, pid := range pids {
		if at, err := inodeOf(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil && at == inode {
			return pid, nil
		}
	}
	return 0, err
}

// processes are those of the cgroup and of what is below it; with an error, if not all
// of them.
func (a *Attachment) processes() (pids []int, err error) {
	var errs []error
	unread := func(err error) {
		if err != nil && !gone(err) { // What goes away meanwhile has no processes.
			errs = append(errs, err)
		}
	}
	unread(filepath.WalkDir(a.opts.Cgroup, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			unread(err)
			return nil
		}
		some, err := processesIn(path)
		unread(err)
		pids = append(pids, some...)
		return nil
	}))
	return pids, errors.Join(errs...)
}

// processesIn are those of one cgroup. A threaded one has threads only, of processes that
// may have others elsewhere.
func processesIn(dir string) ([]int, error) {
	pids, err := numbers(filepath.Join(dir, "cgroup.procs"))
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return pids, err
	}
	threads, err := numbers(filepath.Join(dir, "cgroup.threads"))
	for _, thread := range threads {
		pid, err := processOf(thread)
		if err != nil && !gone(err) {
			return pids, err
		}
		if err == nil && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	return pids, err
}

// processOf is the process of a thread.
func processOf(thread int) (pid int, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", thread))
	if err != nil {
		return 0, err
	}
	_, b, _ = bytes.Cut(b, []byte("\nTgid:"))
	_, err = fmt.Sscan(string(b), &pid)
	return pid, err
}

// numbers are those in a file; zeros, which stand for processes that cannot be named here,
// are left out.
func numbers(file string) (all []int, err error) {
	b, err := os.ReadFile(file)
	for _, word := range strings.Fields(string(b)) {
		if n, err := strconv.Atoi(word); err == nil && n != 0 {
			all = append(all, n)
		}
	}
	return all, err
}

// gone reports whether what was to be read is there no more.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ESRCH)
}

func inodeOf(path string) (uint64, error) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	return st.Ino, err
}

func (a *Attachment) homeOf(netns uint64) *home {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.homes[netns]
}

// known reports whether a namespace is listened in.
func (a *Attachment) known(inode uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, h := range a.homes {
		if h.inode == inode {
			return true
		}
	}
	return false
}

// forgetStrangers makes room for those who ask anew: it deletes the namespaces that
// nobody listens in and that were asked about some time ago.
func (a *Attachment) forgetStrangers() {
	const old = 2 * time.Second
	now := monotonic()
	var gone []uint64
	var netns uint64
	var v bpf.RedirectHome
	for it := a.objs.Homes.Iterate(); it.Next(&netns, &v); {
		if v.Tcp4 == 0 && int64(now-v.Asked) > int64(old) {
			gone = append(gone, netns)
		}
	}
	for _, netns := range gone {
		_ = a.objs.Homes.Delete(netns) // It may be gone.
	}
	maps.DeleteFunc(a.absent, func(_ uint64, x absence) bool { return time.Since(x.when) > old })
}

// monotonic is the time as the kernel's part has it.
func monotonic() uint64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // It never fails.
	return uint64(now.Nano())
}
