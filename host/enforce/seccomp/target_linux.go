//go:build amd64 || arm64

package seccomp

import (
	"errors"
	"os"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A target is a thread of the tree with what it takes to look into it. Its
// descriptors name that thread for ever: when its number is used again they
// answer ESRCH or ENOENT, never with another thread. After an exec they name
// the thread that has the number then.
type target struct {
	tid, pid uint32
	pidfd    int    // of the thread; of its process before Linux 6.9
	shared   bool   // pidfd is the process's, and this is another thread of it
	dir      int    // its directory in /proc
	exe      int    // the link there to its program
	link     string // what /proc said its program is
	mark     mark   // of that program, once it is known
	unmarked bool   // that program has none
	id       identity
}

// targets lends targets out, so that two workers never share one.
type targets struct {
	slots    [128]atomic.Pointer[target]
	noThread atomic.Bool // the kernel has no PIDFD_THREAD
}

// take returns the target of a thread. cached: it may be of a former thread.
func (ts *targets) take(tid uint32) (t *target, cached bool, err error) {
	if t := ts.slots[tid%uint32(len(ts.slots))].Swap(nil); t != nil {
		if t.tid == tid {
			return t, true, nil
		}
		t.close()
	}
	t, err = ts.open(tid)
	return t, false, err
}

// give takes a target back. One without a descriptor of the thread itself is not
// kept: it could be another thread's by then.
func (ts *targets) give(t *target) {
	if t.shared {
		t.close()
		return
	}
	if old := ts.slots[t.tid%uint32(len(ts.slots))].Swap(t); old != nil {
		old.close()
	}
}

// forget is called when a thread is about to change what is kept about it.
func (ts *targets) forget(tid uint32) {
	if t := ts.slots[tid%uint32(len(ts.slots))].Swap(nil); t != nil {
		t.close()
	}
}

func (ts *targets) close() {
	for i := range ts.slots {
		if t := ts.slots[i].Swap(nil); t != nil {
			t.close()
		}
	}
}

func (ts *targets) open(tid uint32) (*target, error) {
	dir, err := unix.Open("/proc/"+strconv.Itoa(int(tid)), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	t := &target{tid: tid, dir: dir, exe: -1, pidfd: -1}
	if t.pid, err = threadGroup(dir); err == nil {
		err = ts.openPidfd(t)
	}
	if err == nil {
		t.exe, err = unix.Openat(dir, "exe", unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (ts *targets) openPidfd(t *target) (err error) {
	if !ts.noThread.Load() {
		if t.pidfd, err = unix.PidfdOpen(int(t.tid), unix.PIDFD_THREAD); err != unix.EINVAL {
			return err
		}
		ts.noThread.Store(true)
	}
	t.shared = t.tid != t.pid
	t.pidfd, err = unix.PidfdOpen(int(t.pid), 0)
	return err
}

func (t *target) close() {
	unix.Close(t.dir)
	if t.exe >= 0 {
		unix.Close(t.exe)
	}
	if t.pidfd >= 0 {
		unix.Close(t.pidfd)
	}
}

// errUnshared: the process's descriptors are not the thread's.
var errUnshared = errors.New("the thread does not share its process's descriptors, which needs Linux 6.9")

// getFD duplicates a descriptor of the thread into this process.
func (t *target) getFD(fd int32) (int, error) {
	if t.shared {
		const kcmpFiles = 2
		if d, _, e := unix.Syscall6(unix.SYS_KCMP, uintptr(t.tid), uintptr(t.pid), kcmpFiles, 0, 0, 0); e != 0 {
			return -1, e
		} else if d != 0 {
			return -1, errUnshared
		}
	}
	own, _, e := unix.Syscall(unix.SYS_PIDFD_GETFD, uintptr(t.pidfd), uintptr(fd), 0)
	if e != 0 {
		return -1, e
	}
	return int(own), nil
}

// full reports whether the process may have no more descriptors. The kernel says how many
// it has since Linux 6.2; only where these are as many as it may have are they looked at.
func (t *target) full() bool {
	var limit unix.Rlimit
	var st unix.Stat_t
	if unix.Prlimit(int(t.tid), unix.RLIMIT_NOFILE, nil, &limit) != nil || unix.Fstatat(t.dir, "fd", &st, 0) != nil || uint64(st.Size) < limit.Cur {
		return false
	}
	dir, err := unix.Openat(t.dir, "fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(dir), "fd")
	defer f.Close()
	names, _ := f.Readdirnames(-1)
	below := uint64(0)
	for _, name := range names { // A limit that was lowered leaves those above it.
		if n, err := strconv.ParseUint(name, 10, 64); err == nil && n < limit.Cur {
			below++
		}
	}
	return below >= limit.Cur
}

// sharesRoot reports whether paths of the thread end where those of this process do.
func (t *target) sharesRoot() bool {
	const what = unix.STATX_INO | unix.STATX_MNT_ID
	var its, own unix.Statx_t
	err := errors.Join(unix.Statx(t.dir, "root", unix.AT_STATX_SYNC_AS_STAT, what, &its), unix.Statx(unix.AT_FDCWD, "/", unix.AT_STATX_SYNC_AS_STAT, what, &own))
	return err == nil && its.Mask&own.Mask&unix.STATX_MNT_ID != 0 && its.Mnt_id == own.Mnt_id && its.Ino == own.Ino
}

// alone reports whether the thread is the only one of its process.
func (t *target) alone() bool {
	var st unix.Stat_t
	err := unix.Fstatat(t.dir, "task", &st, 0)
	return err == nil && st.Nlink == 3 // Two, and one for each thread.
}
