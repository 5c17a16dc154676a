package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/calloutd/calloutd/host/enforce/seccomp"
)

// Without the callout curl fails to connect. A network namespace of its own
// makes sure that nothing leaves the machine, and that nothing but the redirect
// made the first command work: it works there as well.
func TestNothingButTheCalloutConnects(t *testing.T) {
	warm(t)
	need(t, "curl")
	need(t, "ip")
	need(t, "sh")
	without := policy(t, "version: 1\n")
	inNamespace := func(p string) result {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", `ip link set lo up && exec calloutd run --policy "$1" -- curl -sS http://198.51.100.7/`, "sh", p)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		if os.Getuid() != 0 {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
		}
		return finish(t, cmd)
	}
	r := inNamespace(quickstart)
	require.Zero(t, r.code, r.stderr)
	require.Contains(t, r.stdout, `"original_destination":"198.51.100.7:80"`)

	r = inNamespace(without)
	require.Equal(t, 7, r.code, "curl's code for a failed connect: %s", r.stderr)
	require.Empty(t, r.stdout)
}

func policy(t *testing.T, text string) string {
	t.Helper()
	p := t.TempDir() + "/policy.yaml"
	require.NoError(t, os.WriteFile(p, []byte(text), 0o600))
	return p
}

// A proxy that is gone is "connection refused" to the program, with a line that
// says whose redirect it was.
func TestKilledProxyIsConnectionRefused(t *testing.T) {
	need(t, "python3")
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent()) // A policy ends whole.
	text, err := os.ReadFile(quickstart)
	require.NoError(t, err)
	plugins, err := filepath.Abs("../../plugins")
	require.NoError(t, err)
	at := listenAmong(t, 9000, 9990) // When it is gone, nobody else is there.
	require.NoError(t, at.Close())
	p := policy(t, strings.NewReplacer("kind: inspect}", fmt.Sprintf("kind: inspect, listen: %q}", at.Addr()), "../../plugins", plugins).Replace(string(text)))
	var trace bytes.Buffer
	tr := newTracer(&trace, false, false)
	runner, end, err := new(books).putInForce(t.Context(), p, tr)
	require.NoError(t, err)
	defer end()
	cmd := exec.Command("python3", "-uc", `
import socket
socket.create_connection(("198.51.100.7", 80))
input("connected\n")
try:
    socket.create_connection(("198.51.100.7", 80))
except ConnectionRefusedError:
    print("refused")`)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	r, pw, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	cmd.Stdout = pw
	done := make(chan error, 1)
	go func() {
		_, err := seccomp.Run(t.Context(), seccomp.Options{ALE: runner.Enforcer(), Logf: tr.logf, OnBlocked: tr.onBlocked}, cmd)
		pw.Close()
		done <- err
	}()
	out := bufio.NewReader(r)
	line, err := out.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "connected\n", line)
	gone, now := context.WithCancel(t.Context())
	now()
	runner.Drain(gone)
	_, err = io.WriteString(in, "\n")
	require.NoError(t, err)
	rest, err := io.ReadAll(out)
	require.NoError(t, err)
	require.NoError(t, <-done)
	require.Equal(t, "refused\n", string(rest))
	require.Regexp(t, `^calloutd: \S*python\S*\[\d+\] to 198\.51\.100\.7:80 failed: redirected to 127\.0\.0\.1:\d+ \(proxy inspect\) by filter 1 "documentation web to the proxy" \(\S*policy\.yaml:\d+\), callout "proxy-redirect", where: connection refused\n$`, trace.String())
}

// The terminal is the command's: it is its controlling terminal, a key that
// interrupts reaches it, and calloutd stays until it has ended.
func TestTerminalIsTheCommands(t *testing.T) {
	need(t, "sh")
	need(t, "stty")
	own := make(chan os.Signal, 1)
	signal.Notify(own, os.Interrupt) // What ignores it, as what runs in the background does, leaves that to its children.
	defer signal.Stop(own)
	late, cancel := context.WithTimeout(t.Context(), time.Minute) // A read of a terminal has no deadline.
	defer cancel()
	// A shell that reads could miss a signal until there is something to read.
	cmd := exec.CommandContext(late, "calloutd", "run", "--policy", policy(t, "version: 1\n"), "--",
		"sh", "-c", `test -t 0 && test -t 1 && test -t 2 && stty size; trap 'echo caught; exit 9' INT; echo ready; read line; echo "$line"; while :; do sleep 0.01; done`)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // The shell, too: while it has the terminal the read does not end.
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 33, Cols: 77})
	require.NoError(t, err)
	defer tty.Close()
	out := bufio.NewReader(tty)
	expect := func(want string) {
		t.Helper()
		for {
			line, err := out.ReadString('\n')
			require.NoError(t, err, "waiting for %q", want)
			if strings.Contains(line, want) {
				return
			}
		}
	}
	expect("33 77")
	expect("ready")
	_, err = io.WriteString(tty, "typed\n")
	require.NoError(t, err)
	expect("typed")               // the terminal's echo
	expect("typed")               // the command's answer
	_, err = tty.Write([]byte{3}) // Ctrl-C
	require.NoError(t, err)
	expect("caught")
	err = cmd.Wait()
	require.Equal(t, 9, cmd.ProcessState.ExitCode(), "%v", err)
}

// SIGTERM to calloutd is the command's.
func TestSignalIsPassedOn(t *testing.T) {
	need(t, "sh")
	cmd := exec.CommandContext(t.Context(), "calloutd", "run", "--policy", policy(t, "version: 1\n"), "--",
		"sh", "-c", `trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.01; done`)
	r, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	out := bufio.NewReader(r)
	line, err := out.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	rest, err := io.ReadAll(out)
	require.NoError(t, err)
	require.Equal(t, "caught\n", string(rest))
	err = cmd.Wait()
	require.Equal(t, 9, cmd.ProcessState.ExitCode(), "%v", err)
}

// In a container calloutd may be process 1, whose children all are whom nobody else waits for.
func TestProcessOneReapsOrphans(t *testing.T) {
	need(t, "sh")
	need(t, "unshare")
	cmd := exec.CommandContext(t.Context(), "unshare", "--user", "--map-root-user", "--fork", "--pid", "--mount-proc", "--kill-child",
		"calloutd", "run", "--policy", policy(t, "version: 1\n"), "--", "sh", "-c", `
(sleep 0.1 & echo $! >orphan)
read orphan <orphan
n=0
while [ -d /proc/$orphan ] && [ $n -lt 200 ]; do n=$((n+1)); sleep 0.05; done
grep -s State /proc/$orphan/status
exit 7`)
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	require.Empty(t, string(out))
	require.Equal(t, 7, cmd.ProcessState.ExitCode(), "%v", err)
}

// Colours are for terminals, and for those who want them.
func TestColourOnATerminalOnly(t *testing.T) {
	p := policy(t, "version: 1\nfilters: [{name: no, layer: ALE_AUTH_CONNECT, action: block}]")
	show := func(env ...string) string {
		cmd := exec.CommandContext(t.Context(), "calloutd", "sim", "--policy", p, "--to", "192.0.2.1:1")
		cmd.Env = append(append(os.Environ(), "TERM=xterm", "NO_COLOR="), env...)
		tty, err := pty.Start(cmd)
		require.NoError(t, err)
		defer tty.Close()
		out, _ := io.ReadAll(tty) // EIO is how a terminal ends.
		_ = cmd.Wait()
		return string(out)
	}
	require.Contains(t, show(), "\x1b[1;31mblock")
	require.NotContains(t, show("NO_COLOR=1"), "\x1b")
	require.NotContains(t, show("TERM=dumb"), "\x1b")
}
