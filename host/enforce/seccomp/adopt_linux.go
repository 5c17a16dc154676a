//go:build amd64 || arm64

package seccomp

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Where Yama is set to 1, as in Ubuntu, a process may look into its descendants
// only, and a daemon whose parents have ended is nobody's descendant but init's.
// There this process makes itself the one that gets such orphans. It may be init
// itself, of a container.

const yamaScope = "/proc/sys/kernel/yama/ptrace_scope"

// descendantsOnly reports whether Yama is set so.
func descendantsOnly() bool {
	b, err := os.ReadFile(yamaScope)
	return err == nil && strings.TrimSpace(string(b)) == "1"
}

// adopt makes the orphans of the tree children of this process, if need be. It
// comes before the tree, whose first parent may end at once.
func adopt(opts *Options) (adopting bool, err error) {
	if !descendantsOnly() && os.Getpid() != 1 && !opts.without.init {
		return false, nil
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return false, fmt.Errorf("child subreaper: %w", err)
	}
	return true, nil
}

// reap reaps adopted children until leave is called.
func reap(command *os.Process, treeIsGone func() bool) (leave func()) {
	died, ended := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(died, unix.SIGCHLD)
	go func() {
		defer close(ended)
		reapOrphans(command.Pid, unix.WNOHANG)
		for range died {
			reapOrphans(command.Pid, unix.WNOHANG)
		}
	}()
	return func() {
		signal.Stop(died)
		close(died)
		<-ended
		if treeIsGone() { // Its last one may still be about to die.
			reapOrphans(command.Pid, 0)
		}
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	}
}

// reapOrphans reaps children that are the tree's, and no others: those have a
// seccomp filter more than this process. With WNOHANG it reaps dead ones.
func reapOrphans(command, how int) {
	own, _ := readProcess("self")
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		st, ok := readProcess(filepath.Base(dir))
		if ok && pid != command && st.number("PPid:", 10) == uint64(os.Getpid()) &&
			st.number("Seccomp_filters:", 10) > own.number("Seccomp_filters:", 10) {
			_, _ = unix.Wait4(pid, nil, how, nil)
		}
	}
}

func readProcess(pid string) (status, bool) {
	b, err := os.ReadFile("/proc/" + pid + "/status")
	return b, err == nil
}
