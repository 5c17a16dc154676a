package apart

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/internal/race"
)

func init() {
	tasks["look"] = look
	tasks["eat-in"] = func(cgroup string) string {
		if err := os.WriteFile(cgroup+"/cgroup.procs", []byte("0"), 0); err != nil {
			return err.Error()
		}
		return tasks["eat"]("")
	}
	tasks["run"] = func(in string) string {
		_, err := Run(context.Background(), roomy, []byte(in))
		return fmt.Sprint(err)
	}
}

// look is what the other process has.
func look(string) string {
	out := fmt.Sprintln("env", os.Environ())
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, e := range fds {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil {
			out += fmt.Sprintln("fd", e.Name(), to)
		}
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	out += fmt.Sprintln("dumpable", dumpable, err)
	for name, what := range map[string]int{"core": unix.RLIMIT_CORE, "data": unix.RLIMIT_DATA, "cpu": unix.RLIMIT_CPU, "fsize": unix.RLIMIT_FSIZE} {
		var l unix.Rlimit
		_ = unix.Getrlimit(what, &l)
		out += fmt.Sprintln("limit", name, l.Cur, l.Max)
	}
	oom, _ := os.ReadFile("/proc/self/oom_score_adj")
	return out + "oom " + string(oom)
}

func TestItHasNothingOfWhoStartedIt(t *testing.T) {
	t.Setenv("CALLOUTD_TEST_SECRET", "1")
	secret := t.TempDir() + "/secret"
	require.NoError(t, os.WriteFile(secret, nil, 0o600))
	fd, err := unix.Open(secret, unix.O_RDONLY, 0) // not closed on exec, as those of a parent's
	require.NoError(t, err)
	defer unix.Close(fd)
	out, err := Run(t.Context(), Limits{CPU: 7 * time.Second, Memory: roomy.Memory}, []byte("look"))
	require.NoError(t, err)
	has := string(out)
	require.Contains(t, has, "CALLOUTD_APART=1")
	require.NotContains(t, has, "SECRET")
	require.NotContains(t, has, "secret")
	require.Contains(t, has, "fd 0 pipe:")
	require.NotContains(t, has, "fd 3 pipe:")
	require.Contains(t, has, "dumpable 0 <nil>")
	require.Contains(t, has, "limit core 0 0\n")
	require.Contains(t, has, "limit cpu 7 7\n")
	require.Contains(t, has, fmt.Sprintf("limit data %d %[1]d\n", roomy.Memory))
	require.Contains(t, has, fmt.Sprintf("limit fsize %d %[1]d\n", roomy.Memory))
	require.Contains(t, has, "oom 1000\n")
}

func TestMemoryEndsIt(t *testing.T) {
	l := Limits{Memory: 300 * mebi}
	if race.Enabled {
		l.Memory = 1 << 30
	}
	_, err := Run(t.Context(), l, []byte("eat"))
	require.ErrorIs(t, err, ErrMemory)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Less(t, e.Memory, l.Memory)
	require.Greater(t, e.Memory, l.Memory/16)
}

// Who started it may be stopped, and keep no time.
func TestTheProcessorEndsIt(t *testing.T) {
	_, err := Run(t.Context(), Limits{CPU: time.Second, Memory: roomy.Memory}, []byte("spin"))
	require.ErrorIs(t, err, ErrCPU)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.GreaterOrEqual(t, e.CPU, time.Second/2)
}

// children of a process, by all its threads.
func children(pid int) (out []int) {
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, task := range tasks {
		list, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		for _, c := range strings.Fields(string(list)) {
			n, _ := strconv.Atoi(c)
			out = append(out, n)
		}
	}
	return out
}

// What the runtime of Go says when it has no memory, and whether it says so, is by chance.
func TestALackOfMemoryIsCalledSo(t *testing.T) {
	for memory := range uint64(35) {
		for range 2 {
			_, err := Run(t.Context(), Limits{Memory: 4 * memory * mebi}, []byte("eat"))
			require.ErrorIs(t, err, ErrMemory, "%d MiB", 4*memory)
		}
	}
}

// spinning runs spin and says which process that is, until it is ended.
func spinning(t *testing.T) (pid int, ended <-chan error) {
	done := make(chan error, 1)
	go func() {
		_, err := Run(context.Background(), roomy, []byte("spin"))
		done <- err
	}()
	require.Eventually(t, func() bool {
		for _, c := range children(os.Getpid()) {
			if name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", c)); string(name) == "exe\n" {
				pid = c
			}
		}
		return pid != 0
	}, time.Minute, 10*time.Millisecond)
	return pid, done
}

func TestWhatSomebodyElseKillsIsNoLackOfMemory(t *testing.T) {
	pid, ended := spinning(t)
	require.NoError(t, unix.Kill(pid, unix.SIGKILL))
	require.ErrorIs(t, <-ended, ErrKilled)
}

// The system of a container has less memory than a process there may use.
func TestWhatTheKernelEndsForWantOfMemory(t *testing.T) {
	var group string
	for _, c := range []struct{ dir, limit string }{{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}, {"/sys/fs/cgroup", "memory.max"}} {
		dir := fmt.Sprintf("%s/calloutd-apart-%d", c.dir, os.Getpid())
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		if err := os.WriteFile(dir+"/"+c.limit, []byte(strconv.Itoa(64*mebi)), 0); err == nil {
			group = dir
			break
		}
		require.NoError(t, os.Remove(dir))
	}
	if group == "" {
		require.Empty(t, os.Getenv("CI"), "CI runs as root")
		t.Skip("it takes root to make a cgroup of little memory")
	}
	t.Cleanup(func() {
		require.Eventually(t, func() bool { return os.Remove(group) == nil }, time.Minute, 10*time.Millisecond)
	})
	_, err := Run(t.Context(), roomy, []byte("eat-in "+group))
	require.ErrorIs(t, err, ErrMemory)
}

// It ends even if it is stopped and cannot do so itself.
func TestItIsEndedWithWhoStartedIt(t *testing.T) {
	parent := exec.CommandContext(t.Context(), os.Args[0])
	parent.Env = []string{marker + "=1"}
	const told = "run spin"
	stdin, err := parent.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, parent.Start())
	require.NoError(t, binary.Write(stdin, binary.LittleEndian, [3]uint64{0, roomy.Memory, uint64(len(told))}))
	_, err = stdin.Write([]byte(told))
	require.NoError(t, err)
	var child int
	require.Eventually(t, func() bool {
		for _, c := range children(parent.Process.Pid) {
			if name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", c)); string(name) == "exe\n" { // It is no copy of who started it any more.
				child = c
			}
		}
		return child != 0
	}, time.Minute, 10*time.Millisecond)
	require.NoError(t, unix.Kill(child, unix.SIGSTOP))
	require.NoError(t, parent.Process.Kill())
	_ = parent.Wait()
	gone := func() bool {
		s, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
		return err != nil || strings.Contains(string(s), ") Z ")
	}
	require.Eventually(t, gone, time.Minute, 10*time.Millisecond)
}
