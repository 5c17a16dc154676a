//go:build linux && (amd64 || arm64)

package seccomp

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/internal/doomed"
	"github.com/calloutd/calloutd/host/fwps"
)

// full returns an address whose backlog is full, so that a connect waits until
// drain makes room or the listener is closed. The port is nobody else's after that:
// a connect tries again for a second.
func full(t *testing.T) (addr netip.AddrPort, drain, closeIt func()) {
	addr = vacant(t)
	l := newSocket(unix.AF_INET, unix.SOCK_STREAM)
	require.NoError(t, unix.SetsockoptInt(l, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	require.NoError(t, unix.Bind(l, &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}))
	require.NoError(t, unix.Listen(l, 0))
	c, e := dial(addr)
	require.Zero(t, e)
	closeIt = sync.OnceFunc(func() { unix.Close(l) })
	t.Cleanup(func() { unix.Close(c); closeIt() })
	return addr, func() {
		if fd, _, err := unix.Accept(l); err == nil {
			unix.Close(fd)
		}
	}, closeIt
}

// underWay waits until a socket has sent its SYN to an IPv4 address.
func underWay(to netip.AddrPort) {
	a := to.Addr().As4()
	row := fmt.Sprintf(" %08X:%04X 02 ", binary.NativeEndian.Uint32(a[:]), to.Port())
	for {
		b, err := os.ReadFile("/proc/self/net/tcp")
		check(err)
		if strings.Contains(string(b), row) {
			return
		}
	}
}

// thread runs f on a locked thread and returns its number.
func thread(f func()) (tid int, done <-chan struct{}) {
	start, end := make(chan int), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		start <- unix.Gettid()
		f()
		close(end)
	}()
	return <-start, end
}

func init() {
	// signalled: interrupt a waiting connect with a signal whose handler restarts
	// system calls, or not; then say how it went on.
	programs["signalled"] = func(args []string) {
		c := make(chan os.Signal, 1)
		signal.Notify(c, unix.SIGUSR1)
		var fd int
		var e unix.Errno
		tid, done := thread(func() { fd, e = dial(must(args[0])) })
		connecting(tid)
		if args[1] == "restart" {
			check(unix.Tgkill(os.Getpid(), tid, unix.SIGUSR1))
			<-c
		} else {
			// A signal that comes before the call is received ends it: nothing goes on then.
			underWay(must(args[0]))
			kick(tid)
			<-done
			say(name(e))
		}
		say("handled")
		if args[1] == "restart" {
			<-done
			say(name(e))
			return
		}
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
		check(err)
		so, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		check(err)
		say("outcome", name(unix.Errno(so)))
	}
	// unreceived: interrupt a connect that the supervisor has not received, with a
	// signal whose handler does not restart it.
	programs["unreceived"] = func(args []string) {
		var e unix.Errno
		tid, done := thread(func() { _, e = dial(must(args[0])) })
		connecting(tid)
		kick(tid)
		<-done
		say(name(e))
	}
	// timeout: a blocking connect with SO_SNDTIMEO.
	programs["timeout"] = func(args []string) {
		fd := newSocket(unix.AF_INET, unix.SOCK_STREAM)
		check(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Usec: 30_000}))
		say(name(sysConnect(fd, sockaddrOf(must(args[0])))))
	}
	// crowd: that many threads wait for the first address; then dial the second.
	programs["crowd"] = func(args []string) {
		n, _ := strconv.Atoi(args[2])
		var tids []int
		for range n {
			tid, _ := thread(func() { dial(must(args[0])) })
			tids = append(tids, tid)
		}
		for _, tid := range tids {
			connecting(tid)
		}
		fd, e := dial(must(args[1]))
		say(name(e), read(fd))
	}
	// massacre: let a crowd wait, kill it, and dial.
	programs["massacre"] = func(args []string) {
		c := helper("crowd", args...)
		out, err := c.StdoutPipe()
		check(err)
		check(c.Start())
		_, _ = bufio.NewReader(out).ReadString('\n')
		check(c.Process.Kill())
		_ = c.Wait()
		fd, e := dial(must(args[1]))
		say(name(e), read(fd))
	}
	programs["storm"] = func(args []string) { // a signal a millisecond
		c := make(chan os.Signal, 1)
		signal.Notify(c, unix.SIGALRM)
		it := [2]unix.Timeval{{Usec: 1000}, {Usec: 1000}}
		_, _, _ = unix.RawSyscall(unix.SYS_SETITIMER, 0, uintptr(unsafe.Pointer(&it)), 0)
		ok := 0
		for range 5 {
			fd, e := dial(must(args[0]))
			if e == 0 && read(fd) == "proxy" {
				ok++
			} else {
				say(name(e))
			}
			unix.Close(fd)
		}
		say(ok)
	}
	programs["threads"] = func(args []string) {
		var ok atomic.Int32
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				runtime.LockOSThread()
				for range 10 {
					fd, e := dial(must(args[0]))
					if e == 0 && read(fd) == "proxy" {
						ok.Add(1)
					}
					unix.Close(fd)
				}
			})
		}
		wg.Wait()
		say(ok.Load())
	}
}

// watched runs a program and calls back for each line that it prints.
func watched(t *testing.T, opts Options, cmd *exec.Cmd, line func(string)) {
	r, w := io.Pipe()
	cmd.Stdout = w
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := bufio.NewScanner(r); s.Scan(); {
			line(s.Text())
		}
	}()
	supervise(t, opts, cmd)
	w.Close()
	<-done
}

func TestSignalRestartsConnect(t *testing.T) {
	to, drain, _ := full(t)
	var lines []string
	watched(t, Options{ALE: permit}, helper("signalled", to.String(), "restart"), func(l string) {
		if lines = append(lines, l); l == "handled" {
			drain()
		}
	})
	require.Equal(t, []string{"handled", "ok"}, lines)
}

// After EINTR the connect goes on, and the program learns its outcome from the
// socket: nobody else may have taken the error out of it.
func TestInterruptedConnectGoesOn(t *testing.T) {
	for _, want := range []string{"ok", "ECONNREFUSED"} {
		t.Run(want, func(t *testing.T) {
			to, drain, refuse := full(t)
			var lines []string
			watched(t, Options{ALE: permit}, helper("signalled", to.String(), "interrupt"), func(l string) {
				if lines = append(lines, l); l != "handled" {
					return
				}
				if want == "ok" {
					drain()
				} else {
					refuse()
				}
			})
			require.Equal(t, []string{"EINTR", "handled", "outcome " + want}, lines)
		})
	}
}

// The kernel holds signals back once a call is received. Before, it ends the call:
// a program may see an EINTR that it would not see by itself. README.md says so.
func TestASignalBeforeTheCallIsReceivedEndsIt(t *testing.T) {
	need(t)
	cmd := helper("unreceived", test4)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	opts, ended := Options{Logf: t.Logf}, make(chan error, 1)
	doomed.Go(func() {
		var l listener
		err := startTrapped(cmd, &opts, func(got listener) { l = got }) // Nobody receives.
		if err == nil {
			err = cmd.Wait()
			l.close()
		}
		ended <- err
	})
	require.NoError(t, <-ended)
	require.Equal(t, "EINTR\n", out.String())
}

func TestSendTimeoutEndsConnect(t *testing.T) {
	to, _, _ := full(t)
	require.Equal(t, "EINPROGRESS\n", native(t, "timeout", to.String()))
	require.Equal(t, "EINPROGRESS\n", run(t, permit, "timeout", to.String()))
}

func TestSignalStorm(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "proxy")
	for name, w := range map[string]without{"kernel holds signals back": {}, "kernel before 5.19": {killable: true}} {
		t.Run(name, func(t *testing.T) {
			slow := deciding(func(fwps.Incoming) netip.AddrPort { time.Sleep(20 * time.Millisecond); return p })
			out, _ := supervise(t, Options{ALE: slow, without: w}, helper("storm", test4))
			require.Equal(t, "5\n", out)
		})
	}
}

func TestThreads(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "proxy")
	require.Equal(t, "640\n", run(t, redirectTo(p), "threads", test4))
}

// Decisions that wait for each other are all let in.
func TestStuckDecisionsDoNotStopOthers(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "proxy")
	var arrived atomic.Int32
	together := make(chan struct{})
	out := run(t, deciding(func(fwps.Incoming) netip.AddrPort {
		if arrived.Add(1) == 64 {
			close(together)
		}
		<-together
		return p
	}), "threads", test4)
	require.Equal(t, "640\n", out)
}

// Connects that wait hold no thread: more of them than there may be receivers
// do not stop another.
func TestWaitingConnectsDoNotStopOthers(t *testing.T) {
	to, _, _ := full(t)
	p := serve(t, "tcp4", "127.0.0.1:0", "proxy")
	out := run(t, permit, "crowd", to.String(), p.String(), strconv.Itoa(maxReceivers+20))
	require.Equal(t, "ok proxy\n", out)
}

// The supervisor lets go of the sockets of killed programs while it runs.
func TestConnectsOfTheKilledEnd(t *testing.T) {
	to, _, _ := full(t)
	p := serve(t, "tcp4", "127.0.0.1:0", "proxy")
	const crowd = 50
	before, calls := descriptors(t), 0
	waits := func(what string, until func(sockets int) bool) { // What was open before may be closed meanwhile.
		for end := time.Now().Add(time.Minute); ; runtime.Gosched() {
			n := strings.Count(strings.Join(more(before, descriptors(t)), "\n"), "socket:")
			if until(n) {
				return
			}
			if time.Now().After(end) {
				t.Errorf("%s: it has %d sockets more after a minute", what, n)
				return
			}
		}
	}
	out := run(t, deciding(func(in fwps.Incoming) netip.AddrPort {
		if in.Remote != p {
			return in.Remote
		}
		if calls++; calls == 1 { // The crowd's own: all the others wait.
			waits("all of the crowd connect", func(sockets int) bool { return sockets >= crowd })
			return in.Remote
		}
		waits("they have been killed", func(sockets int) bool { return sockets <= crowd/2 })
		return in.Remote
	}), "massacre", to.String(), p.String(), strconv.Itoa(crowd))
	require.Equal(t, "ok proxy\n", out)
}

// descriptors lists what this process has open.
func descriptors(t testing.TB) string {
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	var s strings.Builder
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil {
			s.WriteString(e.Name() + " " + to + "\n")
		}
	}
	return s.String()
}

// more are the descriptors that were not there before. One that was may be gone: of
// a connection that the proxy had not closed yet.
func more(before, after string) (left []string) {
	had := strings.Split(before, "\n")
	for _, d := range strings.Split(after, "\n") {
		if !slices.Contains(had, d) {
			left = append(left, d)
		}
	}
	return left
}
