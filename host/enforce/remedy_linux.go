package enforce

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Settings that keep unprivileged users from user namespaces, under /proc/sys.
const (
	maxUserNS    = "user/max_user_namespaces"
	debianUserNS = "kernel/unprivileged_userns_clone"
	ubuntuUserNS = "kernel/apparmor_restrict_unprivileged_userns"
	yamaScope    = "kernel/yama/ptrace_scope"
)

// remedy says what helps against a missing capability, empty if only another
// kernel does.
func remedy(name string, err error) string { return remedyUnder("/proc/sys/", name, err) }

func remedyUnder(sys, name string, err error) string {
	refused := errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
	switch {
	case name == NoListener && errors.Is(err, unix.EBUSY):
		return "start it outside of the other program"
	case name == Descendants && errors.Is(err, errNoProc):
		return "as root, mount -t proc proc /proc"
	case name == Descendants:
		return "as root, sysctl kernel.yama.ptrace_scope=1"
	case name == UserNS:
		return userNSRemedy(sys, err)
	case name == LandlockTCP && errors.Is(err, unix.EOPNOTSUPP):
		return "the kernel has it switched off: add landlock to its lsm= parameter"
	case name == PidfdGetfd && refused:
		return "in a container: --cap-add SYS_PTRACE, or a seccomp profile that permits it"
	case refused:
		return "in a container: a seccomp profile that permits it (--security-opt seccomp=FILE)"
	}
	return ""
}

func userNSRemedy(sys string, err error) string {
	switch {
	case errors.Is(err, unix.ENOSPC):
		return "as root, sysctl user.max_user_namespaces=1000 (it is " + setting(sys+maxUserNS) + ")"
	case setting(sys+ubuntuUserNS) == "1":
		return "as root, sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile with userns for calloutd"
	case setting(sys+debianUserNS) == "0":
		return "as root, sysctl kernel.unprivileged_userns_clone=1"
	case errors.Is(err, unix.EPERM):
		return "in a container: a seccomp profile that permits it (--security-opt seccomp=FILE)"
	}
	return ""
}

// setting is a value under /proc/sys, empty if the kernel does not have it.
func setting(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func probeDescendants() error {
	if err := CheckProc(); err != nil {
		return err
	}
	return descendants(setting("/proc/sys/"+yamaScope), Capable(unix.CAP_SYS_PTRACE))
}

// descendants says whether Yama lets a process look into its children.
func descendants(scope string, privileged bool) error {
	scope = strings.TrimSpace(scope)
	if scope == "3" || scope == "2" && !privileged {
		return fmt.Errorf("kernel.yama.ptrace_scope is %s", scope)
	}
	return nil
}

// Capable reports whether this thread has a capability in effect.
func Capable(bit uint) bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&head, &data[0])
	return err == nil && data[bit/32].Effective>>(bit%32)&1 != 0
}

// System says which kernel runs, and as whom this process runs.
func System() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	s := fmt.Sprintf("Linux %s, user %d", unix.ByteSliceToString(u.Release[:]), os.Geteuid())
	if inUserNamespace(setting("/proc/self/uid_map")) {
		s += " of a user namespace"
	}
	for _, c := range []struct {
		bit  uint
		name string
	}{{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"}, {unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_BPF, "CAP_BPF"}, {unix.CAP_SYS_PTRACE, "CAP_SYS_PTRACE"}} {
		if Capable(c.bit) {
			s += " " + c.name
		}
	}
	return s
}
