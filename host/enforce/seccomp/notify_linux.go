//go:build amd64 || arm64

package seccomp

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/calloutd/calloutd/host/enforce"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// What golang.org/x/sys/unix lacks of linux/seccomp.h.
const (
	ioctlIDValid  = 0x40082102
	ioctlSetFlags = 0x40082104
)

type notif struct { // struct seccomp_notif
	ID    uint64
	TID   uint32
	Flags uint32
	Data  struct {
		NR   int32
		Arch uint32
		IP   uint64
		Args [6]uint64
	}
}

type response struct { // struct seccomp_notif_resp
	ID    uint64
	Val   int64
	Error int32
	Flags uint32
}

// install puts prog on the calling thread for good and returns the listener.
func install(prog []bpf.RawInstruction) (int, error) {
	code := make([]unix.SockFilter, len(prog))
	for i, r := range prog {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	set := func(flags uintptr) (uintptr, unix.Errno) {
		fd, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
			unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|flags, uintptr(unsafe.Pointer(&fprog)))
		runtime.KeepAlive(code)
		return fd, e
	}
	fd, e := set(unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
	if e == unix.EINVAL { // before 5.19
		fd, e = set(0)
	}
	switch e {
	case 0:
	case unix.EBUSY:
		return -1, &enforce.UnsupportedError{Name: "a seccomp listener inside another", Why: "this process already runs under one; run it outside"}
	case unix.EINVAL, unix.ENOSYS:
		return -1, &enforce.UnsupportedError{Name: enforce.UserNotif, MinimumKernel: "5.5", Why: e.Error()}
	default:
		return -1, fmt.Errorf("install the seccomp filter: %w", e)
	}
	if err := setSyncWakeUp(int(fd)); err != nil {
		unix.Close(int(fd))
		return -1, err
	}
	return int(fd), nil
}

func setSyncWakeUp(fd int) error {
	_, _, e := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), ioctlSetFlags, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	if e != 0 && e != unix.EINVAL { // EINVAL: before 6.6
		return fmt.Errorf("seccomp listener flags: %w", e)
	}
	return nil
}

// denyConnect makes Landlock deny TCP connect to the calling thread and its
// children. The supervisor's connect on their sockets is not theirs.
func denyConnect() error {
	abi, _, e := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if e != 0 || abi < 4 {
		return &enforce.UnsupportedError{Name: enforce.LandlockTCP, MinimumKernel: "6.7", Why: fmt.Sprintf("ABI %d: %v", int(abi), e)}
	}
	attr := struct{ fs, net uint64 }{net: unix.LANDLOCK_ACCESS_NET_CONNECT_TCP} // Handled, and no rule allows it.
	fd, _, e := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if e != 0 {
		return fmt.Errorf("landlock_create_ruleset: %w", e)
	}
	defer unix.Close(int(fd))
	if _, _, e := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); e != 0 {
		return fmt.Errorf("landlock_restrict_self: %w", e)
	}
	return nil
}

// errGone is what recv returns when no trapped process is left.
var errGone = errors.New("seccomp: the process tree is gone")

// recv waits for a notification. It returns unix.EINTR after a signal.
func recv(fd int, n *notif) error {
	for {
		*n = notif{}
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(n)))
		switch e {
		case 0:
			return nil
		case unix.ENOENT: // It was interrupted before we had it, or nobody is left.
			if hungUp(fd, 0) {
				return errGone
			}
		default:
			return e
		}
	}
}

// hungUp reports whether the tree is gone, waiting up to ms milliseconds.
func hungUp(fd, ms int) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(p, ms)
	return err == nil && n > 0 && p[0].Revents&unix.POLLHUP != 0
}

// retry repeats an ioctl that a signal interrupted. A reply that is lost to
// EINTR leaves the program waiting for ever.
func retry(fd int, req uintptr, arg unsafe.Pointer) unix.Errno {
	for {
		_, _, e := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg))
		if e != unix.EINTR {
			return e
		}
	}
}

func send(fd int, r *response) unix.Errno {
	return retry(fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(r))
}

func idValid(fd int, id uint64) bool { return retry(fd, ioctlIDValid, unsafe.Pointer(&id)) == 0 }

// readMemory reads len(b) bytes of another thread's memory, all or nothing.
func readMemory(tid int, addr uint64, b []byte) unix.Errno {
	if len(b) == 0 {
		return 0
	}
	local := unix.Iovec{Base: &b[0]}
	local.SetLen(len(b))
	remote := unix.RemoteIovec{Base: uintptr(addr), Len: len(b)}
	n, _, e := unix.RawSyscall6(unix.SYS_PROCESS_VM_READV, uintptr(tid), uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1, 0)
	if e == 0 && int(n) != len(b) {
		e = unix.EFAULT
	}
	return e
}
