//go:build amd64 || arm64

package seccomp

import (
	"bytes"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// openThread returns a pidfd of the thread, which may have descriptors that its
// process does not share, or of the process before Linux 6.9.
func openThread(tid int) (int, error) {
	fd, err := unix.PidfdOpen(tid, unix.PIDFD_THREAD)
	if err == unix.EINVAL {
		st, ok := readStatus(tid)
		if !ok {
			return -1, unix.ESRCH
		}
		return unix.PidfdOpen(int(st.number("Tgid:", 10)), 0)
	}
	return fd, err
}

// identify returns the process and the effective user of a thread.
func identify(pidfd, tid int) (pid, uid uint32, ok bool) {
	info := struct { // struct pidfd_info, first version
		mask, cgroup                                    uint64
		pid, tgid, ppid                                 uint32
		ruid, rgid, euid, egid, suid, sgid, fuid, fsgid uint32
		exit                                            int32
	}{mask: 1 | 2} // PIDFD_INFO_PID, PIDFD_INFO_CREDS
	const getInfo = 0xc040ff0b // PIDFD_GET_INFO, since 6.13
	_, _, e := unix.RawSyscall(unix.SYS_IOCTL, uintptr(pidfd), getInfo, uintptr(unsafe.Pointer(&info)))
	if e == 0 && info.mask&3 == 3 {
		return info.tgid, info.euid, true
	}
	st, ok := readStatus(tid)
	if !ok {
		return 0, 0, false
	}
	return uint32(st.number("Tgid:", 10)), uint32(st.column("Uid:", 1, 10)), true
}

func program(pid uint32) string {
	path, _ := os.Readlink("/proc/" + strconv.Itoa(int(pid)) + "/exe")
	return path
}

type status []byte

func readStatus(tid int) (status, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/status")
	return b, err == nil
}

func (s status) number(key string, base int) uint64 { return s.column(key, 0, base) }

func (s status) column(key string, i, base int) uint64 {
	for line := range bytes.Lines(s) {
		if rest, ok := bytes.CutPrefix(line, []byte(key)); ok {
			if f := bytes.Fields(rest); i < len(f) {
				v, _ := strconv.ParseUint(string(f[i]), base, 64)
				return v
			}
		}
	}
	return 0
}

// signalPending reports whether a signal handler waits for this very thread. A
// signal to the process counts only when it has no other thread that could take
// it: to answer -ERESTARTSYS to a thread without a signal would leak it.
func signalPending(tid uint32) bool {
	st, ok := readStatus(int(tid))
	if !ok {
		return false
	}
	pending := st.number("SigPnd:", 16)
	if st.number("Threads:", 10) == 1 {
		pending |= st.number("ShdPnd:", 16)
	}
	return pending&^st.number("SigBlk:", 16)&st.number("SigCgt:", 16) != 0
}
