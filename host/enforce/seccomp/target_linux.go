//go:build amd64 || arm64

package seccomp

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"unsafe"

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

// An identity is who a thread acts for.
type identity struct {
	exe    string // the path of its program
	uid    uint32 // effective
	gid    uint32
	groups []uint32 // gid and the supplementary ones
}

var noName [1]byte // the link that is open itself

// identify reads the program and the effective user, which both can change at
// any time: the program by an exec, after which seen is not its token. What it
// returns must not be changed. buf is scratch.
func (t *target) identify(seen *token, buf []byte) (*identity, error) {
	if t.mark.at == 0 || t.mark.token != *seen {
		if e := t.readProgram(seen, buf); e != 0 {
			return nil, e
		}
	}
	var st unix.Stat_t
	if _, _, e := unix.RawSyscall(unix.SYS_FSTAT, uintptr(t.dir), uintptr(unsafe.Pointer(&st)), 0); e != 0 {
		return nil, e
	}
	t.id.uid = st.Uid
	if t.id.groups == nil || t.id.gid != st.Gid {
		return &t.id, t.readGroups(st.Gid)
	}
	return &t.id, nil
}

// readProgram asks /proc. It looks for a mark the second time, as many threads
// connect only once, and before the program: an exec in between leaves the new
// program with the mark of the old one, which it does not have.
func (t *target) readProgram(seen *token, buf []byte) unix.Errno {
	m := t.mark
	t.mark = mark{} // Unless the program is read as well.
	if *seen != (token{}) {
		m = mark{}
	}
	if known := t.link != ""; known && m.at == 0 && !t.unmarked && !t.shared {
		m = t.readMark(buf)
		t.unmarked = m.at == 0
	}
	n, _, e := unix.RawSyscall6(unix.SYS_READLINKAT, uintptr(t.exe), uintptr(unsafe.Pointer(&noName)),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0)
	if e != 0 {
		return e
	}
	if string(buf[:n]) != t.link { // Compared without a copy.
		t.link, t.unmarked = string(buf[:n]), false
		t.id.exe = programPath(t.link)
	}
	t.mark = m
	return 0
}

// readGroups is done once for a thread: setgroups is trapped, see forget.
func (t *target) readGroups(gid uint32) error {
	st, err := readStatus(t.dir)
	if err != nil {
		return err
	}
	t.id.gid, t.id.groups = gid, []uint32{gid}
	for f := range bytes.FieldsSeq(st.line("Groups:")) {
		g, _ := strconv.ParseUint(string(f), 10, 32)
		t.id.groups = append(t.id.groups, uint32(g))
	}
	return nil
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

// programPath undoes what the kernel appends to the path of a program whose
// file was removed or replaced while it runs: a policy means it still.
func programPath(link string) string {
	path, deleted := strings.CutSuffix(link, " (deleted)")
	if deleted {
		if _, err := os.Lstat(link); err == nil { // It is called so.
			return link
		}
	}
	return path
}

// readMemory reads len(b) bytes of a thread's memory, all or nothing.
func readMemory(tid uint32, addr uint64, b []byte) unix.Errno {
	return readVectors(tid, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}, b)
}

// readVectors fills b with the memory that the vectors name.
func readVectors(tid uint32, vectors []unix.RemoteIovec, b []byte) unix.Errno {
	if len(b) == 0 {
		return 0
	}
	local := unix.Iovec{Base: &b[0]}
	local.SetLen(len(b))
	n, _, e := unix.Syscall6(unix.SYS_PROCESS_VM_READV, uintptr(tid), uintptr(unsafe.Pointer(&local)), 1,
		uintptr(unsafe.Pointer(&vectors[0])), uintptr(len(vectors)), 0)
	if e == 0 && int(n) != len(b) {
		e = unix.EFAULT
	}
	return e
}

// writeMemory is the other direction.
func writeMemory(tid uint32, addr uint64, b []byte) unix.Errno {
	if len(b) == 0 {
		return 0
	}
	local := unix.Iovec{Base: &b[0]}
	local.SetLen(len(b))
	remote := unix.RemoteIovec{Base: uintptr(addr), Len: len(b)}
	n, _, e := unix.Syscall6(unix.SYS_PROCESS_VM_WRITEV, uintptr(tid), uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1, 0)
	if e == 0 && int(n) != len(b) {
		e = unix.EFAULT
	}
	return e
}

// threadGroup returns the process of the thread whose /proc directory is dir.
func threadGroup(dir int) (uint32, error) {
	st, err := readStatus(dir)
	return uint32(st.number("Tgid:", 10)), err
}

// A status is the text of /proc/TID/status.
type status []byte

func readStatus(dir int) (status, error) {
	fd, err := unix.Openat(dir, "status", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "status")
	defer f.Close()
	return io.ReadAll(f)
}

func (s status) line(key string) []byte {
	for line := range bytes.Lines(s) {
		if rest, ok := bytes.CutPrefix(line, []byte(key)); ok {
			return bytes.TrimSpace(rest)
		}
	}
	return nil
}

func (s status) number(key string, base int) uint64 {
	v, _ := strconv.ParseUint(string(s.line(key)), base, 64)
	return v
}

// signalPending reports whether a signal handler waits for this very thread. A
// signal to the process counts only when it has no other thread that could take
// it: to answer -ERESTARTSYS to a thread without a signal would leak it.
func (t *target) signalPending() bool {
	st, err := readStatus(t.dir)
	if err != nil {
		return false
	}
	pending := st.number("SigPnd:", 16)
	if st.number("Threads:", 10) == 1 {
		pending |= st.number("ShdPnd:", 16)
	}
	return pending&^st.number("SigBlk:", 16)&st.number("SigCgt:", 16) != 0
}
