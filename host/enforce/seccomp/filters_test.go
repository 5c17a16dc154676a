//go:build linux && (amd64 || arm64)

package seccomp

import (
	"encoding/hex"
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
		if action == unix.SECCOMP_RET_USER_NOTIF {
			_, err := install(filterOf(unix.SYS_CONNECT, action), false)
			say(err)
			return
		}
		confine(unix.SYS_CONNECT, action)
		_, e := dial(must(args[1]))
		say(name(e))
	}
	// own rules: deny itself TCP by Landlock, and connect.
	programs["own rules"] = func(args []string) {
		check(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		check(denyTCP())
		_, e := dial(must(args[0]))
		say(name(e))
	}
	// trace: a child whose system calls this program makes others of, when they begin or
	// when a filter of its own says so.
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
		check(unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_TRACESECCOMP|unix.PTRACE_O_EXITKILL))
		resume, begins := unix.PtraceSyscall, func() bool { return ws.StopSignal() == unix.SIGTRAP|0x80 }
		if len(args) > 1 {
			resume, begins = unix.PtraceCont, func() bool { return ws.TrapCause() == unix.PTRACE_EVENT_SECCOMP }
		}
		for deliver := 0; ; {
			check(resume(pid, deliver))
			if wait(); ws.Exited() || ws.Signaled() {
				return
			}
			if deliver = 0; !begins() {
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
		if len(args) > 1 {
			confine(harmlessCall, unix.SECCOMP_RET_TRACE)
		}
		sa := sockaddrOf(must(args[0]))
		_, _, e := unix.RawSyscall(harmlessCall, uintptr(newSocket(unix.AF_INET, unix.SOCK_STREAM)), uintptr(unsafe.Pointer(&sa[0])), 16)
		say(name(e))
	}
	// enter: go where the supervisor is, by a socket that was made there, by its number, and by
	// a handle of its namespace, which needs no path (Linux 6.18).
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
		handle, err := hex.DecodeString(args[0])
		check(err)
		const root = -10003 // FD_NSFS_ROOT
		got, err := unix.OpenByHandleAt(root, unix.NewFileHandle(nsfsHandle, handle), unix.O_RDONLY)
		say("handle's", err == nil)
		if err == nil {
			say("entered", name(errno(unix.Setns(got, unix.CLONE_NEWNET))))
		}
	}
}

func filterOf(call uint32, action uint64) []bpf.RawInstruction {
	raw, err := bpf.Assemble(append(load(offNR), append(is(call, ret(uint32(action))), allow...)...))
	check(err)
	check(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	return raw
}

// confine puts a filter on a system call of this thread.
func confine(call uint32, action uint64) {
	raw := filterOf(call, action)
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&fprog)))
	check(callErr(e))
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

// A tracer makes another call of one that is not trapped, before the filter sees it, or after
// that when another filter has told the tracer.
func TestBypassTracer(t *testing.T) {
	for _, how := range [][]string{nil, {"own filter"}} {
		l := listen(t)
		args := append([]string{l.addr.String()}, how...)
		require.Contains(t, native(t, "trace", args...), "\nok\n")
		l.arrive(t, 1)
		require.Equal(t, "suspend EPERM\nEACCES\n", strings.ReplaceAll(run(t, block, "trace", args...), "EINVAL", "EPERM"))
		require.Equal(t, "suspend EPERM\nEACCES\n", strings.ReplaceAll(runIsolated(t, Options{ALE: block}, helper("trace", args...)), "EINVAL", "EPERM"))
		require.Empty(t, l.reached())
	}
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
	own, _, err := unix.NameToHandleAt(unix.AT_FDCWD, "/proc/self/ns/net", unix.AT_SYMLINK_FOLLOW)
	handle := "00"
	if err == nil { // Before Linux 6.18 there are none.
		require.EqualValues(t, nsfsHandle, own.Type())
		handle = hex.EncodeToString(own.Bytes())
	}
	out := native(t, "enter", handle)
	require.Equal(t, "socket's ok\nentered ok\nparent's true\nentered ok\n"+map[bool]string{true: "handle's true\nentered ok\n", false: "handle's false\n"}[err == nil], out)
	require.Equal(t, "socket's EPERM\nparent's false\nhandle's false\n", runIsolated(t, Options{ALE: permit}, helper("enter", handle)))
}

const nsfsHandle = 0xf1 // FILEID_NSFS
