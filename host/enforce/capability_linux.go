package enforce

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/calloutd/calloutd/host/enforce/internal/doomed"
	"golang.org/x/sys/unix"
)

// Probe asks the running kernel, not its version number, what it can enforce.
func Probe() []Capability {
	found := make(chan map[string]error, 1)
	doomed.Go(func() { found <- probeThread() })
	errs := <-found
	cs := capabilities()
	for i := range cs {
		cs[i].Found(errs[cs[i].Name])
	}
	return cs
}

// probeThread changes its thread for good: it installs an empty filter.
func probeThread() map[string]error {
	errs := map[string]error{
		UserNotif:    probeUserNotif(),
		PidfdGetfd:   probePidfdGetfd(),
		WaitKillable: probeWaitKillable(),
		PidfdThread:  probePidfdThread(),
		LandlockTCP:  probeLandlock(),
		UserNS:       probeUserNS(),
		Descendants:  probeDescendants(),
	}
	errs[NoListener], errs[SyncWakeUp] = probeListener()
	return errs
}

func failed(call string, e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return fmt.Errorf("%s: %w", call, e)
}

func probeUserNotif() error {
	action := uint32(unix.SECCOMP_RET_USER_NOTIF)
	_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	return failed("seccomp", e)
}

// probeWaitKillable offers no program: a kernel that knows the flag gets as far
// as reading it.
func probeWaitKillable() error {
	_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, 0)
	if e == unix.EFAULT {
		e = 0
	}
	return failed("seccomp", e)
}

func probePidfdGetfd() error {
	self, err := unix.PidfdOpen(unix.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(self)
	fd, err := unix.PidfdGetfd(self, self, 0)
	if err != nil {
		return fmt.Errorf("pidfd_getfd: %w", err)
	}
	return unix.Close(fd)
}

func probePidfdThread() error {
	fd, err := unix.PidfdOpen(unix.Gettid(), unix.PIDFD_THREAD)
	if err != nil {
		return fmt.Errorf("pidfd_open: %w", err)
	}
	return unix.Close(fd)
}

// probeUserNS starts a program that does not exist in new namespaces: a kernel
// that makes them gets as far as looking for it.
func probeUserNS() error {
	_, err := syscall.ForkExec("/proc/self/no-such-program", []string{""}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}}})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return fmt.Errorf("clone: %w", err)
}

func probeLandlock() error {
	abi, _, e := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if e == 0 && abi < 4 {
		return fmt.Errorf("landlock ABI is %d, 4 is needed", abi)
	}
	return failed("landlock_create_ruleset", e)
}

func probeListener() (listener, sync error) {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		err = fmt.Errorf("no_new_privs: %w", err)
		return err, err
	}
	allow := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}}
	prog := unix.SockFprog{Len: 1, Filter: &allow[0]}
	fd, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(allow)
	if e != 0 {
		err := failed("seccomp", e)
		if e == unix.EBUSY {
			err = fmt.Errorf("this process runs under a seccomp listener already: %w", e)
		}
		return err, err
	}
	defer unix.Close(int(fd))
	const setFlags = 0x40082104 // SECCOMP_IOCTL_NOTIF_SET_FLAGS
	_, _, e = unix.RawSyscall(unix.SYS_IOCTL, fd, setFlags, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	return nil, failed("ioctl", e)
}
