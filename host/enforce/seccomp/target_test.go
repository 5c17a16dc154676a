//go:build linux && (amd64 || arm64)

package seccomp

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
)

func init() {
	// exec: dial, become another program, which dials. That happens on the leading
	// thread or on another one, which then becomes the leading one.
	programs["exec"] = func(args []string) {
		if args[0] == "leader, which clears its token" {
			clearToken()
		}
		become := func() {
			for range dials {
				_, e := dial(must(args[1]))
				say(name(e))
			}
			if args[0] == "another thread, of other groups" {
				_, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 1, uintptr(unsafe.Pointer(&[]uint32{4242}[0])), 0) // Of this thread.
				say(name(e))
			}
			check(os.Setenv(programEnv, "dial"))
			check(unix.Exec(args[2], []string{args[2], args[1]}, os.Environ()))
		}
		if !strings.HasPrefix(args[0], "another thread") {
			become() // main runs on the leading thread
		}
		for range dials { // So does this, and the other one takes its number over.
			_, e := dial(must(args[1]))
			say(name(e))
		}
		_, done := thread(become)
		<-done
	}
	// vfork: dial, and dial in a child that shares the memory until it execs.
	programs["spawn"] = func(args []string) {
		for _, bin := range []string{os.Args[0], args[1]} {
			c := exec.Command(bin, args[0])
			c.Env, c.Stdout = append(os.Environ(), programEnv+"=dial"), os.Stdout
			check(c.Run())
		}
	}
	// leaderless: dial when the leading thread has ended.
	programs["leaderless"] = func(args []string) {
		go func() {
			for ended := false; !ended; {
				stat, err := os.ReadFile("/proc/self/stat")
				check(err)
				ended = bytes.Contains(stat, []byte(") Z "))
			}
			_, e := dial(must(args[0]))
			say(name(e))
			os.Exit(0)
		}()
		_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0) // RawSyscall would keep the processor, which may be the only one.
	}
	programs["deleted"] = func(args []string) {
		check(os.Remove(os.Args[0]))
		_, e := dial(must(args[0]))
		say(name(e))
	}
	// seteuid: dial as root, and after giving that up on this thread.
	programs["seteuid"] = func(args []string) {
		runtime.LockOSThread()
		_, e := dial(must(args[0]))
		say(name(e))
		_, _, e = unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 65534, ^uintptr(0))
		say(name(e))
		_, _, e = unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0)
		say(name(e))
		_, e = dial(must(args[0]))
		say(name(e))
	}
	// unshared: a thread with descriptors of its own, whose numbers mean something
	// else in the rest of the process.
	programs["unshared"] = func(args []string) {
		_, done := thread(func() {
			check(unix.Unshare(unix.CLONE_FILES))
			fd, e := dial(must(args[0]))
			say(name(e), read(fd))
		})
		<-done
	}
	programs["identity spoof"] = func(args []string) {
		f, err := os.Open("/bin/true")
		check(err)
		say(name(errno(unix.Prctl(unix.PR_SET_MM, unix.PR_SET_MM_EXE_FILE, f.Fd(), 0, 0))))
	}
}

// dials are enough for the supervisor to know the mark of a thread.
const dials = 3

// clearToken is what some programs do with what they take for a secret.
func clearToken() {
	self := targets{}
	t, _, err := self.take(uint32(unix.Getpid()))
	check(err)
	m := t.readMark(make([]byte, 4096))
	if e := writeMemory(t.tid, m.at, make([]byte, len(m.token))); e != 0 {
		panic(e)
	}
	if t.readMark(make([]byte, 4096)) != (mark{}) {
		panic("what is cleared is no mark: another program may have cleared it there")
	}
}

// record is an ALE that permits and notes who asks.
func record() (a *ale.Enforcer, seen func() []fwps.Incoming) {
	var mu sync.Mutex
	var ins []fwps.Incoming
	return deciding(func(in fwps.Incoming) netip.AddrPort {
			mu.Lock()
			defer mu.Unlock()
			ins = append(ins, in)
			return in.Remote
		}), func() []fwps.Incoming {
			mu.Lock()
			defer mu.Unlock()
			return ins
		}
}

func TestProgramAfterExec(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "x").String()
	self, err := os.Executable()
	require.NoError(t, err)
	other := copyBinary(t, "other")
	for _, c := range []struct {
		before int
		args   []string
	}{
		{dials, []string{"exec", "leader", p, other}},
		{dials, []string{"exec", "leader, which clears its token", p, other}},
		{2 * dials, []string{"exec", "another thread", p, other}},
		{1, []string{"spawn", p, other}},
	} {
		t.Run(c.args[0]+" "+c.args[1], func(t *testing.T) {
			a, seen := record()
			run(t, a, c.args[0], c.args[1:]...)
			ins := seen()
			require.Len(t, ins, c.before+1)
			for _, in := range ins[:c.before] {
				require.Equal(t, self, in.AppID)
			}
			last := ins[c.before]
			require.Equal(t, other, last.AppID)
			if c.args[0] == "exec" {
				require.Equal(t, ins[0].ProcessID, last.ProcessID)
			}
		})
	}
}

// A thread that takes over the leading one's number by an exec brings its own groups.
func TestGroupsAfterExecByAnotherThread(t *testing.T) {
	asRoot(t)
	p := serve(t, "tcp4", "127.0.0.1:0", "x").String()
	a, seen := record()
	run(t, a, "exec", "another thread, of other groups", p, os.Args[0])
	ins := seen()
	require.Len(t, ins, 2*dials+1)
	require.NotContains(t, ins[0].Groups, uint32(4242))
	require.Equal(t, ins[0].ProcessID, ins[2*dials].ProcessID)
	require.Contains(t, ins[2*dials].Groups, uint32(4242))
}

// A process whose leading thread has ended is known by the others.
func TestProgramWithoutItsLeadingThread(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "x").String()
	self, err := os.Executable()
	require.NoError(t, err)
	a, seen := record()
	require.Equal(t, "ok\n", run(t, a, "leaderless", p))
	require.Equal(t, self, seen()[0].AppID)
}

func TestProgramThatWasDeleted(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "x").String()
	a, seen := record()
	for _, name := range []string{"gone", "named (deleted)"} {
		bin := copyBinary(t, name)
		program := "deleted"
		if name != "gone" {
			program = "dial"
		}
		cmd := helper(program, p)
		cmd.Path, cmd.Args[0] = bin, bin
		supervise(t, Options{ALE: a}, cmd)
		require.Equal(t, bin, seen()[len(seen())-1].AppID)
	}
}

func TestUserAfterSeteuid(t *testing.T) {
	asRoot(t)
	p := serve(t, "tcp4", "127.0.0.1:0", "x").String()
	a, seen := record()
	require.Equal(t, "ok\nok\nok\nok\n", run(t, a, "seteuid", p))
	require.Len(t, seen(), 2)
	require.Equal(t, uint32(0), seen()[0].UserID)
	require.Equal(t, uint32(65534), seen()[1].UserID)
}

func TestProgramCannotRenameItself(t *testing.T) {
	require.Equal(t, "EPERM\n", run(t, permit, "identity spoof"))
}

func TestThreadWithItsOwnDescriptors(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "hello").String()
	require.Equal(t, "ok hello\n", run(t, permit, "unshared", p))
}

// Before Linux 6.9 a descriptor can only be fetched from the whole process.
func TestBeforeThreadPidfds(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "proxy").String()
	opts := Options{ALE: permit, without: without{pidfdThread: true}}
	out, _ := supervise(t, opts, helper("threads", p))
	require.Equal(t, "640\n", out)
	out, _ = supervise(t, opts, helper("unshared", p))
	require.Equal(t, "EACCES \n", out)
}

// A thread's number is used again: what is cached about the old one is not used.
func TestTargetOfAThreadThatIsGone(t *testing.T) {
	need(t)
	for name, noThread := range map[string]bool{"thread pidfd": false, "process pidfd": true} {
		t.Run(name, func(t *testing.T) {
			var ts targets
			ts.noThread.Store(noThread)
			defer ts.close()
			in, out, err := os.Pipe()
			require.NoError(t, err)
			defer in.Close()
			cmd := helper("wait")
			cmd.Stdin = in
			require.NoError(t, cmd.Start())
			tid := uint32(cmd.Process.Pid)
			tg, cached, err := ts.take(tid)
			require.NoError(t, err)
			require.False(t, cached)
			_, err = tg.getFD(0)
			require.NoError(t, err)
			ts.give(tg)
			out.Close()
			require.NoError(t, cmd.Wait())
			tg, cached, err = ts.take(tid)
			require.NoError(t, err)
			require.True(t, cached)
			_, err = tg.getFD(0)
			require.ErrorIs(t, err, unix.ESRCH)
			_, err = tg.identify(new(token), make([]byte, 4096))
			require.Error(t, err)
			ts.give(tg)
		})
	}
}

// As long as a thread has its token where it was, /proc is not asked what program it
// is. When it has another one there, or none, it is.
func TestProgramIsKnownByItsMark(t *testing.T) {
	var ts targets
	defer ts.close()
	tg, _, err := ts.take(uint32(unix.Getpid()))
	require.NoError(t, err)
	defer tg.close()
	self, err := os.Executable()
	require.NoError(t, err)
	sa, path := make([]byte, sockaddr4Len), make([]byte, 4096)
	who := func(change func(seen *token)) string {
		var seen token
		require.Zero(t, tg.readMarked(uint64(uintptr(unsafe.Pointer(&sa[0]))), sa, &seen))
		change(&seen)
		id, err := tg.identify(&seen, path)
		require.NoError(t, err)
		return id.exe
	}
	asIs := func(*token) {}
	require.Equal(t, self, who(asIs))
	require.Zero(t, tg.mark, "many connect only once")
	require.Equal(t, self, who(asIs))
	known := tg.mark
	require.NotZero(t, known.at)

	tg.link, tg.id.exe = "what /proc does not say", "the mark's"
	require.Equal(t, "the mark's", who(asIs))
	require.Equal(t, self, who(func(seen *token) { seen[3]++ }))
	require.Equal(t, known, tg.mark, "it is found again")
	tg.id.exe, tg.link = "the mark's", "what /proc does not say"
	require.Equal(t, self, who(func(*token) { tg.mark.at = 0 }))
	tg.id.exe = "the mark's"
	require.Equal(t, known, tg.mark, "it is found again")
	require.Equal(t, "the mark's", who(func(seen *token) { *seen = token{} }), "a call without an address")
	tg.id.exe, tg.link = self, self

	tg.mark.at = 1 // nothing is there, as after an exec
	require.Equal(t, self, who(asIs))
	require.Equal(t, known, tg.mark)

	exe := tg.exe // A program that cannot be read has no mark: it is not the one before.
	tg.exe, tg.mark = -1, mark{}
	_, err = tg.identify(new(token), path)
	require.ErrorIs(t, err, unix.EBADF)
	require.Zero(t, tg.mark)
	tg.exe = exe
}

// What it costs to ask anew, at each connect, who a thread is: by its mark, which
// is read with the address, and without one.
func BenchmarkIdentify(b *testing.B) {
	for _, name := range []string{"marked", "unmarked"} {
		b.Run(name, func(b *testing.B) {
			var ts targets
			defer ts.close()
			t, _, err := ts.take(uint32(unix.Getpid()))
			require.NoError(b, err)
			defer t.close()
			path, sa, seen := make([]byte, 4096), make([]byte, sockaddr4Len), new(token)
			_, err = t.identify(seen, path)
			require.NoError(b, err)
			t.unmarked = name == "unmarked"
			addr := uint64(uintptr(unsafe.Pointer(&sa[0])))
			b.ReportAllocs()
			for b.Loop() {
				if e := t.readMarked(addr, sa, seen); e != 0 {
					b.Fatal(e)
				}
				if _, err := t.identify(seen, path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
