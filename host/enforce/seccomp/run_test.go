//go:build linux && (amd64 || arm64)

package seccomp

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/fwps"
)

func init() {
	programs["exit"] = func(args []string) { n, _ := strconv.Atoi(args[0]); os.Exit(n) }
	programs["die"] = func([]string) { _ = unix.Kill(os.Getpid(), unix.SIGKILL); select {} }
	programs["term"] = func([]string) {
		c := make(chan os.Signal, 1)
		signal.Notify(c, unix.SIGTERM)
		say("ready")
		<-c
		os.Exit(9)
	}
	// orphan: leave a grandchild that dials after its parent is gone.
	programs["orphan"] = func(args []string) {
		c := helper("late", append(args, strconv.Itoa(os.Getpid()))...)
		c.Stdout = os.Stdout
		c.SysProcAttr = &unix.SysProcAttr{Setsid: true}
		check(c.Start())
		os.Exit(7)
	}
	// leaves: leave a grandchild that waits.
	programs["leaves"] = func([]string) {
		signal.Ignore(unix.SIGTERM, unix.SIGHUP)
		c := helper("wait")
		c.Stdin, c.Stdout = os.Stdin, os.Stdout
		check(c.Start())
		os.Exit(7)
	}
	programs["late"] = func(args []string) {
		for strconv.Itoa(os.Getppid()) == args[1] {
		}
		fd, e := dial(must(args[0]))
		say("late", name(e), read(fd))
	}
	programs["wait"] = func([]string) {
		say("ready")
		_, _ = io.Copy(io.Discard, os.Stdin)
	}
	programs["nested"] = func([]string) {
		_, err := Run(context.Background(), Options{ALE: permit}, exec.Command("/nonexistent/command"))
		say(err)
	}
}

func TestExitIsKept(t *testing.T) {
	_, st := supervise(t, Options{ALE: permit}, helper("exit", "42"))
	require.Equal(t, 42, st.ExitCode())
	_, st = supervise(t, Options{ALE: permit}, helper("die"))
	require.Equal(t, unix.SIGKILL, st.Sys().(interface{ Signal() unix.Signal }).Signal())
}

func TestSIGTERMIsPassedOn(t *testing.T) {
	cmd := helper("term")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	go func() {
		if l, _ := bufio.NewReader(out).ReadString('\n'); l == "ready\n" {
			_ = unix.Kill(os.Getpid(), unix.SIGINT) // ignored
			_ = unix.Kill(os.Getpid(), unix.SIGTERM)
		}
	}()
	_, st := supervise(t, Options{ALE: permit}, cmd)
	require.Equal(t, 9, st.ExitCode())
}

func TestOrphanIsServed(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "proxy")
	r, w, err := os.Pipe()
	require.NoError(t, err)
	cmd := helper("orphan", test4)
	cmd.Stdout = w
	_, st := supervise(t, Options{ALE: redirectTo(p)}, cmd)
	w.Close()
	require.Equal(t, 7, st.ExitCode())
	l, _ := bufio.NewReader(r).ReadString('\n')
	r.Close()
	require.Equal(t, "late ok proxy\n", l)
}

// Where a process may look into its descendants only, orphans become the
// supervisor's, which reaps them and no other children.
func TestOrphanIsAdopted(t *testing.T) {
	other := helper("exit", "3")
	require.NoError(t, other.Start())
	p := serve(t, "tcp4", "127.0.0.1:0", "proxy")
	r, w, err := os.Pipe()
	require.NoError(t, err)
	cmd := helper("orphan", test4)
	cmd.Stdout = w
	var parent, orphan int
	supervise(t, Options{without: without{init: true}, ALE: deciding(func(in fwps.Incoming) netip.AddrPort {
		orphan = int(in.ProcessID)
		st, _ := readProcess(strconv.Itoa(orphan))
		parent = int(st.number("PPid:", 10))
		return p
	})}, cmd)
	w.Close()
	l, _ := bufio.NewReader(r).ReadString('\n')
	r.Close()
	require.Equal(t, "late ok proxy\n", l)
	require.Equal(t, os.Getpid(), parent)
	_, there := readProcess(strconv.Itoa(orphan))
	require.False(t, there, "it is reaped")
	require.Equal(t, 3, exitCode(other.Wait()), "others are left to those who started them")
}

func exitCode(err error) int {
	if e := (*exec.ExitError)(nil); errors.As(err, &e) {
		return e.ExitCode()
	}
	return 0
}

func TestCancelKillsTheCommand(t *testing.T) {
	need(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := helper("wait")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	defer in.Close()
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	go func() {
		_, _ = bufio.NewReader(out).ReadString('\n')
		cancel()
	}()
	st, err := Run(ctx, Options{ALE: permit}, cmd)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, unix.SIGKILL, st.Sys().(interface{ Signal() unix.Signal }).Signal())
}

// Processes that the command has left are waited for until a signal comes: of a terminal
// after that has been said.
func TestSignalEndsTheWaitForOrphans(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT} {
		t.Run(sig.String(), func(t *testing.T) {
			need(t)
			own := make(chan os.Signal, 100) // It must not end the tests.
			signal.Notify(own, sig)
			defer signal.Stop(own)
			var said atomic.Bool
			ended := make(chan int, 1)
			cmd := helper("leaves")
			r, w, err := os.Pipe() // The orphan ends with it.
			require.NoError(t, err)
			defer w.Close()
			cmd.Stdin = r
			out, told, err := os.Pipe()
			require.NoError(t, err)
			defer out.Close()
			cmd.Stdout = told
			go func() {
				st, err := Run(t.Context(), Options{ALE: permit, Logf: func(format string, _ ...any) {
					said.Store(said.Load() || strings.Contains(format, "the command has ended"))
				}}, cmd)
				if err != nil {
					t.Error(err)
				}
				ended <- st.ExitCode()
			}()
			line, err := bufio.NewReader(out).ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, "ready\n", line)
			for deadline := time.Now().Add(time.Minute); ; {
				_ = unix.Kill(os.Getpid(), sig)
				select {
				case code := <-ended:
					require.Equal(t, 7, code)
					require.Equal(t, !passedOn(sig), said.Load())
					r.Close()
					told.Close()
					return
				case <-time.After(50 * time.Millisecond):
					require.True(t, time.Now().Before(deadline), "it waits on")
				}
			}
		})
	}
}

// A listener that breaks ends the run with the reason, instead of leaving the
// tree waiting for answers.
func TestBrokenListenerEndsTheRun(t *testing.T) {
	need(t)
	sup, err := newSupervisor(t.Context(), Options{ALE: permit, Logf: t.Logf, OnBlocked: func(enforce.Denial) {}})
	require.NoError(t, err)
	cmd := helper("wait")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	defer in.Close()
	waited, err := sup.start(cmd)
	require.NoError(t, err)
	require.NoError(t, unix.Dup3(sup.monitor.event, sup.l.fd, unix.O_CLOEXEC))
	sup.mu.Lock()
	for w := range sup.threads {
		kick(w.thread)
	}
	sup.mu.Unlock()
	<-sup.ctx.Done()
	require.ErrorIs(t, context.Cause(sup.ctx), unix.ENOTTY)
	require.NoError(t, cmd.Process.Kill())
	<-waited
	sup.stop()
}

func TestNestedRunIsRefused(t *testing.T) {
	require.Equal(t, "a seccomp listener inside another is not supported on this system: this process already runs under one; run it outside\n",
		run(t, permit, "nested"))
}

func TestCommandThatCannotStart(t *testing.T) {
	need(t)
	_, err := Run(t.Context(), Options{ALE: permit}, exec.Command("/nonexistent/command"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestNothingIsLeftOpen(t *testing.T) {
	p := serve(t, "tcp4", "127.0.0.1:0", "proxy")
	before := descriptors(t)
	for _, a := range []*ale.Enforcer{permit, block, redirectTo(p)} {
		run(t, a, "errnos", p.String())
	}
	require.Eventually(t, func() bool { return more(before, descriptors(t)) == nil }, time.Minute, time.Millisecond) // serve closes its own.
}

// A program that is killed while its connect is decided on does not connect.
func TestKilledDuringDecisionDoesNotConnect(t *testing.T) {
	l := listen(t)
	out, st := supervise(t, Options{ALE: deciding(func(in fwps.Incoming) netip.AddrPort {
		pidfd, err := unix.PidfdOpen(int(in.ProcessID), 0)
		if err == nil {
			_ = unix.Kill(int(in.ProcessID), unix.SIGKILL)
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, -1)
			unix.Close(pidfd)
		}
		return in.Remote
	}), OnBlocked: func(d enforce.Denial) { t.Error("reported", d.Err) }}, helper("dial", l.addr.String()))
	require.Empty(t, out)
	require.False(t, st.Exited())
	require.Empty(t, l.reached())
}

// With several receivers that see one too many, only one goes.
func TestReceiversNeverRunOut(t *testing.T) {
	for range 20_000 {
		s := new(supervisor)
		s.receiving.Store(receivers + 1)
		ends := make(chan bool)
		for range receivers + 1 {
			go func() { ends <- s.surplus() }()
		}
		gone := 0
		for range receivers + 1 {
			if <-ends {
				gone++
			}
		}
		require.Equal(t, 1, gone)
	}
}
