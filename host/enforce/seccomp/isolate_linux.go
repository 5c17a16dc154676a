//go:build amd64 || arm64

package seccomp

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"syscall"

	"github.com/calloutd/calloutd/host/enforce"
	"golang.org/x/sys/unix"
)

// isolated adds namespaces to how a command is started. Users keep their numbers.
func isolated(attr *syscall.SysProcAttr) *syscall.SysProcAttr {
	a := syscall.SysProcAttr{}
	if attr != nil {
		a = *attr
	}
	a.Cloneflags |= unix.CLONE_NEWUSER | unix.CLONE_NEWNET
	if a.UidMappings == nil && a.GidMappings == nil {
		a.UidMappings, a.GidMappings = ownIDs("/proc/self/uid_map", os.Geteuid()), ownIDs("/proc/self/gid_map", os.Getegid())
		a.GidMappingsEnableSetgroups = os.Geteuid() == 0
	}
	return &a
}

// ownIDs maps to itself what this process may map: root all that it sees, others
// what they are.
func ownIDs(file string, id int) []syscall.SysProcIDMap {
	b, err := os.ReadFile(file)
	if os.Geteuid() != 0 || err != nil {
		return []syscall.SysProcIDMap{{ContainerID: id, HostID: id, Size: 1}}
	}
	var m []syscall.SysProcIDMap
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		first, _ := strconv.Atoi(string(f[0]))
		size, _ := strconv.Atoi(string(f[2]))
		m = append(m, syscall.SysProcIDMap{ContainerID: first, HostID: first, Size: size})
	}
	return m
}

// notIsolated says what is missing when a namespace could not be made.
func notIsolated(opts *Options, err error) error {
	if opts.Isolate && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EINVAL)) {
		return &enforce.UnsupportedError{Name: enforce.UserNS, MinimumKernel: "3.8", Why: err.Error()}
	}
	return err
}

// makeSocket answers the socket() of an isolated program: it makes the socket
// here, outside of the namespace. The filter has looked at the arguments.
func (w *worker) makeSocket() unix.Errno {
	a := &w.n.Data.Args
	fd, err := unix.Socket(int(int32(a[0])), int(int32(a[1]))|unix.SOCK_CLOEXEC, int(int32(a[2])))
	if err != nil {
		return errnoOf(err)
	}
	defer unix.Close(fd)
	if e := w.own(fd); e != 0 {
		return e
	}
	return w.install(fd, int(int32(a[1])))
}

// own gives a socket that root has made to the user who asked for it, whom others know it
// by: firewalls, and who shares its port (SO_REUSEPORT).
func (w *worker) own(fd int) unix.Errno {
	if w.s.user != 0 {
		return 0 // Its programs cannot become other users.
	}
	t, _, err := w.s.targets.take(w.n.TID) // A wrong one's number was used again: install will see.
	if err != nil {
		return w.fail("open the thread", err)
	}
	defer w.s.targets.give(t)
	var st unix.Stat_t
	if err = unix.Fstat(t.dir, &st); err == nil && (st.Uid != w.s.user || st.Gid != w.s.group) {
		err = unix.Fchown(fd, int(st.Uid), int(st.Gid))
	}
	if err != nil {
		return w.fail("give it a socket", err)
	}
	return 0
}

// errnoOf returns the errno in err. What has none must not become a success.
func errnoOf(err error) unix.Errno {
	if e, ok := errors.AsType[unix.Errno](err); ok && e != 0 {
		return e
	}
	return unix.EACCES
}
