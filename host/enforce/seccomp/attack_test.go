//go:build linux && (amd64 || arm64)

package seccomp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/enforcetest"
)

// A program of the same user that turns on its supervisor. Root may trace
// everybody, so supervisor and program run as an ordinary user here.

const nobodyID = 65534

func init() {
	// supervise: redirect a program to an address, or permit it everything. "open"
	// leaves the supervisor without its protection, of which Landlock is a part: it
	// lets nobody trace outwards.
	programs["supervise"] = func(args []string) {
		cmd := helper(args[2], args[3:]...)
		cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
		policy := permit
		if to, err := netip.ParseAddrPort(args[1]); err == nil {
			policy = redirectTo(to)
		}
		opts := Options{ALE: policy, Logf: func(format string, args ...any) { say("log:", strings.TrimSpace(fmt.Sprintf(format, args...))) }}
		if args[0] == "protected and told" {
			opts.OnBlocked = func(d enforce.Denial) { say("told:", d.PID, d.Remote.IsValid(), d.Err) }
		}
		opts.without.landlock = !strings.HasPrefix(args[0], "protected")
		opts.without.undumpable = args[0] == "open"
		_, err := Run(context.Background(), opts, cmd)
		check(err)
	}
	programs["attack"] = func([]string) {
		boss := os.Getppid()
		try := func(what string, e unix.Errno) { say(what, e == 0) }
		pidfd, err := unix.PidfdOpen(boss, 0)
		check(err)
		listener := unix.ENOENT
		for fd := range 64 {
			if _, err := unix.PidfdGetfd(pidfd, fd, 0); err != nil {
				if errno(err) != unix.EBADF {
					listener = errno(err)
				}
				continue
			}
			if to, _ := os.Readlink("/proc/" + strconv.Itoa(boss) + "/fd/" + strconv.Itoa(fd)); strings.Contains(to, "seccomp") {
				listener = 0
				break
			}
		}
		try("fetch the listener", listener)
		_, err = os.OpenFile("/proc/"+strconv.Itoa(boss)+"/mem", os.O_RDWR, 0)
		try("write its memory", errnoIn(err))
		var b [1]byte
		local := unix.Iovec{Base: &b[0], Len: 1}
		remote := unix.RemoteIovec{Base: uintptr(unsafe.Pointer(&programs)), Len: 1}
		_, _, e := unix.RawSyscall6(unix.SYS_PROCESS_VM_READV, uintptr(boss), uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1, 0)
		if e == unix.EFAULT { // Allowed, but nothing is there.
			e = 0
		}
		try("read its memory", e)
		_, _, e = unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(boss), 0, 0, 0, 0)
		try("trace it", e)
	}
	programs["dial when told"] = func(args []string) {
		say("ready")
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		_, e := dial(must(args[0]))
		say(name(e))
	}
	programs["undumpable"] = func(args []string) {
		check(unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
		for range 200 {
			_, e := dial(must(args[0]))
			say(name(e))
		}
	}
	programs["euid"] = func(args []string) { say(os.Geteuid()) }
	programs["setuid"] = func(args []string) {
		c := exec.Command(args[0])
		c.Env, c.Stdout = append(os.Environ(), programEnv+"=euid"), os.Stdout
		check(c.Run())
	}
}

// unprivileged returns a supervisor of an ordinary user.
func unprivileged(t *testing.T, args ...string) *exec.Cmd {
	need(t)
	cmd := helper("supervise", args...)
	if os.Geteuid() == 0 {
		cmd.Path = copyBinary(t, "calloutd")
		cmd.Args[0] = cmd.Path
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobodyID, Gid: nobodyID}}
	}
	return cmd
}

func output(t *testing.T, cmd *exec.Cmd) string {
	out, err := cmd.Output()
	require.NoError(t, err)
	return string(out)
}

func TestProgramCannotTakeOverItsSupervisor(t *testing.T) {
	attacks := []string{"fetch the listener", "write its memory", "read its memory", "trace it", ""}
	require.Equal(t, strings.Join(attacks, " false\n"), output(t, unprivileged(t, "protected", "permit", "attack")))
	require.Equal(t, strings.Join(attacks, " false\n"), output(t, unprivileged(t, "without landlock", "permit", "attack")))
	require.Equal(t, strings.Join(attacks, " true\n"), output(t, unprivileged(t, "open", "permit", "attack")), "the attacks must work on what is not protected")
}

func TestSupervisorIsDumpableAgainAfterwards(t *testing.T) {
	before, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	require.NoError(t, err)
	run(t, permit, "exit", "0")
	after, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	require.NoError(t, err)
	require.Equal(t, before, after)
}

// Without its supervisor a program connects nowhere.
func TestSupervisorKilled(t *testing.T) {
	l := listen(t)
	cmd := unprivileged(t, "protected", "permit", "dial when told", l.addr.String())
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	cmd.Stdout = w
	require.NoError(t, cmd.Start())
	w.Close()
	out := bufio.NewReader(r)
	line, err := out.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Process.Release
	_, _ = cmd.Process.Wait()
	_, err = io.WriteString(in, "go\n")
	require.NoError(t, err)
	line, _ = out.ReadString('\n')
	require.Equal(t, "ENOSYS\n", line)
	require.Empty(t, l.reached())
}

func TestProgramThatCannotBeLookedInto(t *testing.T) {
	l := listen(t)
	began := time.Now()
	out := output(t, unprivileged(t, "protected", "permit", "undumpable", l.addr.String()))
	require.Equal(t, 200, strings.Count(out, "EACCES\n"))
	logged := strings.Count(out, "is the program non-dumpable, or another user's?")
	require.NotZero(t, logged)
	require.LessOrEqual(t, uint64(logged), enforcetest.MostLines(began), "it fills no disk")
	require.Contains(t, out, "more like it were not logged)")
	require.Empty(t, l.reached())
}

// What is refused because nobody could see what it is counts like any other refusal.
func TestRefusedUnseenIsTold(t *testing.T) {
	l := listen(t)
	out := output(t, unprivileged(t, "protected and told", "permit", "undumpable", l.addr.String()))
	require.Equal(t, 200, strings.Count(out, "EACCES\n"))
	told := regexp.MustCompile(`(?m)^told: [1-9]\d* false seccomp: cannot .*: operation not permitted \(is the program non-dumpable, or another user's\?\)$`)
	require.Len(t, told.FindAllString(out, -1), 200)
	require.NotContains(t, out, "log:")
}

func TestSetuidDoesNotCount(t *testing.T) {
	asRoot(t)
	bin := copyBinary(t, "setuid")
	require.NoError(t, os.Chmod(bin, 0o755|os.ModeSetuid))
	plain := unprivileged(t)
	plain.Path, plain.Args, plain.Env = bin, []string{bin}, append(os.Environ(), programEnv+"=euid")
	require.Equal(t, "0\n", output(t, plain))
	require.Equal(t, strconv.Itoa(nobodyID)+"\n", output(t, unprivileged(t, "protected", "permit", "setuid", bin)))
}

func errnoIn(err error) (e unix.Errno) {
	errors.As(err, &e)
	return e
}
