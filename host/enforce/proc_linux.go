package enforce

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

var errNoProc = errors.New("/proc does not show this process")

// CheckProc says why programs cannot be looked into: /proc is not mounted, or is that of
// another PID namespace, where the numbers that this one knows are other processes.
func CheckProc() error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return fmt.Errorf("%w: %w", errNoProc, err)
	}
	return ownNumbers(string(status))
}

// ownNumbers wants one number in NSpid: with more /proc is of a namespace further out.
func ownNumbers(status string) error {
	for line := range strings.Lines(status) {
		if ids, found := strings.CutPrefix(line, "NSpid:"); found && len(strings.Fields(ids)) > 1 {
			return fmt.Errorf("%w: it is that of another PID namespace", errNoProc)
		}
	}
	return nil
}

// firstPIDNamespace is what the kernel calls the first one, since there are several.
const firstPIDNamespace = "pid:[4026531836]"

// CheckNumbers says why the numbers that the kernel's programs give processes are not
// those that are seen here: they are those of the first PID namespace. By another's a
// process would be taken for the program that has its number here.
func CheckNumbers() error {
	if err := CheckProc(); err != nil {
		return err
	}
	return firstNumbers(os.Readlink("/proc/self/ns/pid"))
}

func firstNumbers(namespace string, err error) error {
	if err != nil {
		return fmt.Errorf("which PID namespace this is cannot be told: %w", err)
	}
	if namespace != firstPIDNamespace {
		return errors.New("this is a PID namespace of its own, where the kernel's numbers of processes are those of other programs: run it outside, as docker run --pid=host does")
	}
	return nil
}

// inUserNamespace says by a process's map of user IDs whether it is in another one than
// the first, whose map is whole.
func inUserNamespace(uidMap string) bool {
	return uidMap != "" && strings.Join(strings.Fields(uidMap), " ") != "0 0 4294967295"
}

// MoreRights says what helps who may not do something. Root of a user namespace has its
// capabilities over what belongs to that namespace only.
func MoreRights(capabilities string) string {
	if inUserNamespace(setting("/proc/self/uid_map")) {
		return "run it outside of this user namespace, as root: here even root has no rights over the system"
	}
	return "run it as root, or with " + capabilities
}

// ProgramPath undoes what the kernel appends to the path of a program whose file was removed
// or replaced while it runs (/proc/PID/exe): a policy means it still.
func ProgramPath(link string) string {
	path, deleted := strings.CutSuffix(link, " (deleted)")
	if deleted {
		if _, err := os.Lstat(link); err == nil { // It is called so.
			return link
		}
	}
	return path
}
