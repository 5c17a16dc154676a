package apart

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const root = "/"

// executable is this program also when another one is where it was.
func executable() (string, error) { return "/proc/self/exe", nil }

func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// confine limits this process. What it gets afterwards is hostile.
func confine(l Limits) error {
	closeInherited()
	// It goes before who started it, should the system be short of memory.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0) // It may not be allowed.
	// What it makes is machine code: no program of the same user's writes into it.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_DUMPABLE: %w", err)
	}
	seconds := uint64(math.MaxUint64)
	if l.CPU > 0 {
		seconds = max(1, uint64(l.CPU/time.Second))
	}
	for _, r := range []struct {
		what int
		most uint64
	}{{unix.RLIMIT_CORE, 0}, {unix.RLIMIT_CPU, seconds}, {unix.RLIMIT_DATA, l.Memory}, {unix.RLIMIT_FSIZE, l.Memory}} {
		var old unix.Rlimit
		if err := unix.Getrlimit(r.what, &old); err != nil {
			return fmt.Errorf("getrlimit: %w", err)
		}
		most := min(r.most, old.Max)
		if err := unix.Setrlimit(r.what, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return fmt.Errorf("setrlimit: %w", err)
		}
	}
	debug.SetMemoryLimit(int64(l.Memory - l.Memory/8)) // The collector runs before the system says no.
	return nil
}

// closeInherited closes what whoever started this had open for the programs that it starts.
// What this process opened itself is closed on exec, which is how the two are told apart.
func closeInherited() {
	fds, _ := os.ReadDir("/proc/self/fd") // Without /proc this program would not run.
	for _, e := range fds {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd < 3 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd)
		}
	}
}

// killedForMemory counts the processes that the kernel has ended for want of memory, of
// all or of a cgroup. Where it does not say, each that is killed may have been: the count
// is another one each time.
func killedForMemory() uint64 {
	b, _ := os.ReadFile("/proc/vmstat")
	if _, n, ok := strings.Cut(string(b), "\noom_kill "); ok {
		n, _, _ = strings.Cut(n, "\n")
		if n, err := strconv.ParseUint(n, 10, 64); err == nil {
			return n
		}
	}
	return unsaid.Add(1)
}

var unsaid atomic.Uint64

func killed(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

func resident(s *os.ProcessState) uint64 {
	if u, ok := s.SysUsage().(*syscall.Rusage); ok {
		return uint64(u.Maxrss) << 10
	}
	return 0
}
