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
	ioctlAddFD    = 0x40182103
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

// A listener is where the trapped system calls of one tree arrive.
type listener struct {
	fd  int
	set int // an epoll set, for poll
	// killable: once received, a call is only interrupted by a signal that kills
	// (WAIT_KILLABLE_RECV, Linux 5.19).
	killable bool
}

// install puts prog on the calling thread for good.
func install(prog []bpf.RawInstruction, killable bool) (listener, error) {
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
	fd, e := uintptr(0), unix.EINVAL
	if killable {
		fd, e = set(unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
	}
	if e == unix.EINVAL {
		killable = false
		fd, e = set(0)
	}
	switch e {
	case 0:
	case unix.EBUSY:
		return listener{}, &enforce.UnsupportedError{Name: "a seccomp listener inside another", Why: "this process already runs under one; run it outside"}
	case unix.EINVAL, unix.ENOSYS:
		return listener{}, &enforce.UnsupportedError{Name: enforce.UserNotif, MinimumKernel: "5.5", Why: e.Error()}
	default:
		return listener{}, fmt.Errorf("install the seccomp filter: %w", e)
	}
	l := listener{fd: int(fd), set: -1, killable: killable}
	err := l.syncWakeUp()
	if err == nil {
		l.set, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	}
	if err == nil {
		return l, nil
	}
	unix.Close(l.fd)
	return listener{}, err
}

func (l listener) close() {
	unix.Close(l.fd)
	unix.Close(l.set)
}

// syncWakeUp makes the kernel hand its CPU from the program to the supervisor
// and back.
func (l listener) syncWakeUp() error {
	_, _, e := unix.RawSyscall(unix.SYS_IOCTL, uintptr(l.fd), ioctlSetFlags, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	if e != 0 && e != unix.EINVAL { // EINVAL: before 6.6
		return fmt.Errorf("seccomp listener flags: %w", e)
	}
	return nil
}

// errGone is what recv returns when no trapped process is left.
var errGone = errors.New("seccomp: the process tree is gone")

// recv waits for a notification. It returns unix.EINTR after a signal.
func (l listener) recv(n *notif) error {
	for {
		*n = notif{} // The kernel wants zeros.
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(n)))
		switch e {
		case 0:
			return nil
		case unix.ENOENT: // It was interrupted before we had it, or nobody is left.
			if l.hungUp(0) {
				return errGone
			}
		default:
			return e
		}
	}
}

// hungUp reports whether the tree is gone, waiting up to ms milliseconds.
func (l listener) hungUp(ms int) bool { return l.poll(0, ms)&unix.POLLHUP != 0 }

// pending reports whether a notification waits to be received.
func (l listener) pending() bool { return l.poll(unix.POLLIN, 0)&unix.POLLIN != 0 }

func (l listener) poll(events int16, ms int) int16 {
	p := []unix.PollFd{{Fd: int32(l.fd), Events: events}}
	switch n, err := unix.Poll(p, ms); {
	case err == unix.EINVAL:
		return l.pollWithoutLimit(ms) & (events | unix.POLLHUP)
	case err != nil || n == 0:
		return 0
	}
	return p[0].Revents
}

// pollWithoutLimit is poll where this process may have no descriptors at all, which any
// program of its user can bring about (prlimit): poll refuses then, and epoll does not.
func (l listener) pollWithoutLimit(ms int) int16 {
	err := unix.EpollCtl(l.set, unix.EPOLL_CTL_ADD, l.fd, &unix.EpollEvent{Events: unix.EPOLLIN})
	if got := make([]unix.EpollEvent, 1); err == nil || err == unix.EEXIST {
		if n, err := unix.EpollWait(l.set, got, ms); err == nil && n > 0 {
			return int16(got[0].Events)
		}
	}
	return 0
}

// retry repeats an ioctl that a signal interrupted. A reply that is lost to
// EINTR leaves the program waiting for ever.
func (l listener) retry(req uintptr, arg unsafe.Pointer) unix.Errno {
	for {
		_, _, e := unix.RawSyscall(unix.SYS_IOCTL, uintptr(l.fd), req, uintptr(arg))
		if e != unix.EINTR {
			return e
		}
	}
}

// send answers a notification. It reports false when nobody waits for it.
func (l listener) send(r *response) bool {
	return l.retry(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(r)) == 0
}

// valid reports whether the thread still waits in the call id. What was read
// about it before is then true of that very thread.
func (l listener) valid(id *uint64) bool { return l.retry(ioctlIDValid, unsafe.Pointer(id)) == 0 }

// addFD gives the program a copy of a descriptor and returns its number there.
// The answer follows by send: SECCOMP_ADDFD_FLAG_SEND would do both at once, but
// when a signal interrupts it the program's call returns 0 without a descriptor.
func (l listener) addFD(id uint64, fd int, cloexec bool) (int, unix.Errno) {
	add := struct { // struct seccomp_notif_addfd
		id                              uint64
		flags, srcFD, newFD, newFDFlags uint32
	}{id: id, srcFD: uint32(fd)}
	if cloexec {
		add.newFDFlags = unix.O_CLOEXEC
	}
	for {
		n, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), ioctlAddFD, uintptr(unsafe.Pointer(&add)))
		if e != unix.EINTR {
			return int(n), e
		}
	}
}
