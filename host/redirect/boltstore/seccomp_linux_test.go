//go:build amd64

package boltstore_test

import (
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// fileCalls are the system calls with which a store uses files, but for closing and
// unlocking them: after those that fail nobody could go on.
var fileCalls = map[int32]string{
	unix.SYS_OPENAT: "openat", unix.SYS_NEWFSTATAT: "newfstatat", unix.SYS_FSTAT: "fstat", unix.SYS_UNLINKAT: "unlinkat",
	unix.SYS_RENAMEAT: "renameat", unix.SYS_PWRITE64: "pwrite64", unix.SYS_PREAD64: "pread64", unix.SYS_FTRUNCATE: "ftruncate",
	unix.SYS_FDATASYNC: "fdatasync", unix.SYS_FSYNC: "fsync", unix.SYS_FLOCK: "flock", unix.SYS_MMAP: "mmap",
}

// failing lets calls of this process fail: it is its own supervisor, by seccomp.
type failing struct {
	n, from, to atomic.Int64 // calls; which of them fail, none if to is zero
	errno       atomic.Int32
	first       atomic.Int32 // that failed
}

// arm lets so many calls fail, from the given one on, counted from 1.
func (f *failing) arm(from, calls int64, errno unix.Errno) {
	f.n.Store(0)
	f.first.Store(-1)
	f.errno.Store(int32(errno))
	f.from.Store(from)
	f.to.Store(from + calls)
}

// disarm lets no more fail, and returns the name of the first that did.
func (f *failing) disarm() string {
	f.to.Store(0)
	return fileCalls[f.first.Load()]
}

func listen() *failing {
	const flags = 16 + 8*3 // of mmap, in struct seccomp_data
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: 0, Size: 4}}
	for nr := range fileCalls {
		if nr != unix.SYS_MMAP {
			program = append(program, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(nr), SkipTrue: 1}, bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF})
		}
	}
	program = append(program, // The memory of Go is anonymous.
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_MMAP, SkipTrue: 3}, bpf.LoadAbsolute{Off: flags, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.MAP_ANONYMOUS, SkipTrue: 1}, bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW})
	raw, err := bpf.Assemble(program)
	must(err)
	var code []unix.SockFilter
	for _, r := range raw {
		code = append(code, unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K})
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	must(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	fd, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC|unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH|unix.SECCOMP_FILTER_FLAG_NEW_LISTENER,
		uintptr(unsafe.Pointer(&unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]})))
	if e != 0 {
		panic(e)
	}
	f := new(failing)
	go f.serve(fd)
	return f
}

func (f *failing) serve(fd uintptr) {
	for {
		var call struct { // struct seccomp_notif
			id         uint64
			pid, flags uint32
			nr         int32
			arch       uint32
			ip         uint64
			args       [6]uint64
		}
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, fd, unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&call))); e != 0 {
			continue // A signal, such as Go sends to itself, took it back.
		}
		answer := struct { // struct seccomp_notif_resp
			id           uint64
			value        int64
			errno, flags int32
		}{id: call.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if to := f.to.Load(); to > 0 && (call.nr != unix.SYS_FLOCK || call.args[1] != unix.LOCK_UN) {
			if n := f.n.Add(1); n >= f.from.Load() && n < to {
				answer.errno, answer.flags = -f.errno.Load(), 0
				f.first.CompareAndSwap(-1, call.nr)
			}
		}
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, fd, unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&answer)))
	}
}
