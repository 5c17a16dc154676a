//go:build linux && (amd64 || arm64)

package seccomp

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce"
)

// Programs that confine themselves, or trace each other, to get rid of the trap.

func init() {
	// own filter: put a filter of its own on connect(), and connect.
	programs["own filter"] = func(args []string) {
		action, _ := strconv.ParseUint(args[0], 0, 32)
		prog := append(load(offNR), append(is(unix.SYS_CONNECT, ret(uint32(action))), allow...)...)
		raw, err := bpf.Assemble(prog)
		check(err)
		check(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		if action == unix.SECCOMP_RET_USER_NOTIF {
			_, err := install(raw, false)
			say(err)
			return
		}
		code := make([]unix.SockFilter, len(raw))
		for i, r := range raw {
			code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
		}
		fprog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
		_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&fprog)))
		check(callErr(e))
		_, e = dial(must(args[1]))
		say(name(e))
	}
	// own rules: deny itself TCP by Landlock, and connect.
	programs["own rules"] = func(args []string) {
		check(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		check(denyTCP())
		_, e := dial(must(args[0]))
		say(name(e))
	}
	// traced: a child whose system calls its parent makes others of.
	programs["trace"] = func(args []string) {
		c := helper("traced", args...)
		c.Stdout = os.Stdout
		c.SysProcAttr = &unix.SysProcAttr{Ptrace: true}
		check(c.Start())
		pid := c.Process.Pid
		var ws unix.WaitStatus
		wait := func() {
			_, err := unix.Wait4(pid, &ws, unix.WALL, nil)
			check(err)
		}
		wait() // It has begun.
		suspend := unix.PtraceSetOptions(pid, unix.PTRACE_O_SUSPEND_SECCOMP)
		say("suspend", name(errno(suspend)))
		check(unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_EXITKILL))
		for deliver := 0; ; {
			check(unix.PtraceSyscall(pid, deliver))
			if wait(); ws.Exited() || ws.Signaled() {
				return
			}
			if deliver = 0; ws.StopSignal() != unix.SIGTRAP|0x80 {
				deliver = int(ws.StopSignal())
				continue
			}
			var regs unix.PtraceRegs
			check(unix.PtraceGetRegs(pid, &regs))
			if becomeConnect(&regs) {
				check(unix.PtraceSetRegs(pid, &regs))
			}
		}
	}
	programs["traced"] = func(args []string) {
		sa := sockaddrOf(must(args[0]))
		_, _, e := unix.RawSyscall(harmlessCall, uintptr(newSocket(unix.AF_INET, unix.SOCK_STREAM)), uintptr(unsafe.Pointer(&sa[0])), 16)
		say(name(e))
	}
	// enter: go where the supervisor is, by a socket that was made there and by its number.
	programs["enter"] = func(args []string) {
		const getNetns = 0x894c // SIOCGSKNS
		fd, _, e := unix.RawSyscall(unix.SYS_IOCTL, uintptr(newSocket(unix.AF_INET, unix.SOCK_STREAM)), getNetns, 0)
		say("socket's", name(e))
		if e == 0 {
			say("entered", name(errno(unix.Setns(int(fd), unix.CLONE_NEWNET))))
		}
		file, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", os.Getppid()))
		say("parent's", err == nil)
		if err == nil {
			say("entered", name(errno(unix.Setns(int(file.Fd()), unix.CLONE_NEWNET))))
		}
	}
}

// A filter of its own can refuse a program more, and never less: of what several say the
// kernel does what is strictest.
func TestBypassOwnFilter(t *testing.T) {
	l := listen(t)
	for action, want := range map[uint32]string{
		unix.SECCOMP_RET_ALLOW:                         "EACCES\n",
		unix.SECCOMP_RET_LOG:                           "EACCES\n",
		unix.SECCOMP_RET_TRACE:                         "EACCES\n",
		unix.SECCOMP_RET_ERRNO:                         "ok\n", // The call is not made.
		unix.SECCOMP_RET_ERRNO | uint32(unix.ENETDOWN): "ENETDOWN\n",
		unix.SECCOMP_RET_USER_NOTIF:                    "a seccomp listener inside another is not supported on this system: this process already runs under one; run it outside\n",
	} {
		require.Equal(t, want, run(t, block, "own filter", strconv.FormatUint(uint64(action), 10), l.addr.String()), "%#x", action)
	}
	require.Empty(t, l.reached())
	require.Equal(t, "ok\n", run(t, permit, "own filter", strconv.FormatUint(uint64(unix.SECCOMP_RET_ALLOW), 10), l.addr.String()))
	require.Equal(t, "ENETDOWN\n", run(t, permit, "own filter", strconv.FormatUint(uint64(unix.SECCOMP_RET_ERRNO|uint32(unix.ENETDOWN)), 10), l.addr.String()))
}

// A tracer makes another call of one that is not trapped, before the filter sees it.
func TestBypassTracer(t *testing.T) {
	l := listen(t)
	require.Contains(t, native(t, "trace", l.addr.String()), "\nok\n")
	l.arrive(t, 1)
	require.Equal(t, "suspend EPERM\nEACCES\n", strings.ReplaceAll(run(t, block, "trace", l.addr.String()), "EINVAL", "EPERM"))
	require.Equal(t, "suspend EPERM\nEACCES\n", strings.ReplaceAll(runIsolated(t, Options{ALE: block}, helper("trace", l.addr.String())), "EINVAL", "EPERM"))
	require.Empty(t, l.reached())
}

// What a program forbids itself by Landlock the supervisor does for it: README.md tells.
func TestOwnLandlockRulesAboutTCPDoNotHold(t *testing.T) {
	need(t, enforce.LandlockTCP)
	l := listen(t)
	require.Equal(t, "EACCES\n", native(t, "own rules", l.addr.String()))
	require.Equal(t, "ok\n", run(t, permit, "own rules", l.addr.String()))
	require.Equal(t, "EACCES\n", run(t, block, "own rules", l.addr.String()))
}

func TestIsolatedProgramDoesNotGetOut(t *testing.T) {
	asRoot(t)
	require.Equal(t, "socket's ok\nentered ok\nparent's true\nentered ok\n", native(t, "enter"))
	require.Equal(t, "socket's EPERM\nparent's false\n", runIsolated(t, Options{ALE: permit}, helper("enter")))
}
