package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
)

// flightOf is a flight file of n connections.
func flightOf(t *testing.T, n int) string {
	t.Helper()
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "tcp 6 1 ESTABLISHED src=10.0.0.2 dst=192.0.%d.%d sport=%d dport=%d\n", i/250%250, 1+i%250, 1024+i%60000, 1+i%1000)
	}
	dir := t.TempDir()
	text, file := filepath.Join(dir, "conntrack"), filepath.Join(dir, "a.flight")
	require.NoError(t, os.WriteFile(text, b.Bytes(), 0o600))
	r := calloutd(t, "record", "--from", "conntrack", "--out", file, text)
	require.Zero(t, r.code, r.stderr)
	return file
}

// inTerminal starts a command that has a terminal for what is no result.
func inTerminal(t *testing.T, cmd *exec.Cmd, also ...func(theirs *os.File) error) (terminal *os.File, out *bytes.Buffer) {
	t.Helper()
	cmd.Env = append(os.Environ(), "TERM=xterm")
	out = new(bytes.Buffer)
	cmd.Stdout = out
	terminal, theirs, err := pty.Open()
	require.NoError(t, err)
	t.Cleanup(func() { terminal.Close() })
	cmd.Stderr = theirs
	for _, do := range also {
		require.NoError(t, do(theirs))
	}
	require.NoError(t, cmd.Start())
	require.NoError(t, theirs.Close())
	return terminal, out
}

func TestATerminalSeesHowFarADiffIs(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	require.NoError(t, os.WriteFile(text, bytes.Repeat([]byte("/usr/bin/curl 192.0.2.7:80\n"), 3000), 0o600))
	for name, c := range map[string]struct {
		args      []string
		bar, last string
	}{
		"over a flight file": {[]string{"--over", flightOf(t, 3000)}, `\[#*\.*\] +\d+ %  [\d,]+ connections`, `of 3,000 connections change\n$`},
		"over a text":        {[]string{"--over", text}, `\r\x1b\[K[\d,]+ connections?\r`, `of 3,000 connections change\n$`},
		"a search":           {nil, `\[#*\.*\] +\d+ %  [\d,]+ connections`, `of [\d,]+ connections change\n$`},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "calloutd", append([]string{"diff", quickstart, forward}, c.args...)...)
			terminal, out := inTerminal(t, cmd)
			var shown bytes.Buffer
			_, _ = shown.ReadFrom(terminal) // It ends with an error when the other end is closed.
			require.NoError(t, cmd.Wait())
			require.Regexp(t, `^\r\x1b\[Kloading `+quickstart+`, \d+ s`, shown.String())
			require.Regexp(t, c.bar, shown.String())
			require.Regexp(t, c.last, out.String())
			require.True(t, bytes.HasSuffix(shown.Bytes(), []byte("\r\x1b[K")), "the bar is taken away")
		})
	}
}

func TestATerminalSeesWhatInspectWaitsFor(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "calloutd", "inspect", "../../sdk/wat/split.wasm", "--config", "proxy 8443 77")
	terminal, out := inTerminal(t, cmd)
	var shown bytes.Buffer
	_, _ = shown.ReadFrom(terminal) // It ends with an error when the other end is closed.
	require.NoError(t, cmd.Wait())
	require.Regexp(t, `^\r\x1b\[Kcompiling ../../sdk/wat/split.wasm, \d+ s.*\r\x1b\[K$`, shown.String())
	require.Contains(t, out.String(), "canned call")
}

// Callouts whose code is to be covered take long to compile.
func TestATerminalSeesWhatFuzzWaitsFor(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "calloutd", "fuzz", "../../examples/conditions/policy.yaml", "--limit", "10", "--out", "-")
	terminal, out := inTerminal(t, cmd)
	var shown bytes.Buffer
	_, _ = shown.ReadFrom(terminal) // It ends with an error when the other end is closed.
	require.NoError(t, cmd.Wait())
	require.Regexp(t, `^\r\x1b\[Kloading ../../examples/conditions/policy.yaml, \d+ s\r\x1b\[K`, shown.String())
	require.Equal(t, "10 connections tried, 0 faults\n", out.String())
}

// A soak may take hours: who ends it before gets what it saw, and no yes.
func TestASoakThatIsInterruptedSaysWhatItSaw(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "calloutd", "bench", quickstart, "--soak", "1h", "--plot", filepath.Join(t.TempDir(), "soak.svg"))
	terminal, out := inTerminal(t, cmd)
	shown := bufio.NewReader(terminal)
	bar, err := shown.ReadString('n')
	require.NoError(t, err)
	require.Regexp(t, `\[\.+\] +0 %  [\d,]+ decision$`, bar)
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	_, _ = shown.WriteTo(io.Discard)
	require.Error(t, cmd.Wait())
	require.Equal(t, 130, cmd.ProcessState.ExitCode(), out.String())
	require.Regexp(t, `: \d+ decisions in \d+ s, \d+ reloads, 0 failures, interrupted\nmemory is flat: `, out.String())
}

func TestATerminalSeesHowFarABenchIs(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "calloutd", "bench", quickstart, "--time", "200ms")
	terminal, out := inTerminal(t, cmd)
	var shown bytes.Buffer
	_, _ = shown.ReadFrom(terminal) // It ends with an error when the other end is closed.
	require.NoError(t, cmd.Wait())
	require.Regexp(t, `^\r\x1b\[K\[\.+\] +0 %  0 decisions\r.*#.*\] +\d+ %  [\d,]+ decisions\r\x1b\[K$`, shown.String())
	require.Regexp(t, `(?m)^a decision +\d+ ns`, out.String())
}

func TestATerminalSeesHowFarCasesAre(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"policy.yaml": "version: 1\n",
		"a_test.yaml": "version: 1\npolicy: policy.yaml\ncases: [{name: one, to: 192.0.2.7:80, expect: {action: permit}}]\n",
		"b_test.yaml": "version: 1\npolicy: policy.yaml\ncases: [{name: one, to: 192.0.2.7:80, expect: {action: permit}}]\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	cmd := exec.CommandContext(t.Context(), "calloutd", "test", dir)
	terminal, out := inTerminal(t, cmd)
	var shown bytes.Buffer
	_, _ = shown.ReadFrom(terminal) // It ends with an error when the other end is closed.
	require.NoError(t, cmd.Wait())
	require.Regexp(t, `\[\.+\] +0 %  0 cases.*\r\x1b\[K$`, shown.String())
	require.Regexp(t, `(?m)^ok +2 cases$`, out.String())
}

// What goes on in a next line would stay there.
func TestABarFitsATerminalThatIsNarrow(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "calloutd", "diff", quickstart, forward)
	terminal, _ := inTerminal(t, cmd, func(theirs *os.File) error { return pty.Setsize(theirs, &pty.Winsize{Rows: 10, Cols: 20}) })
	var shown bytes.Buffer
	_, _ = shown.ReadFrom(terminal) // It ends with an error when the other end is closed.
	require.NoError(t, cmd.Wait())
	lines := strings.Split(shown.String(), "\r\x1b[K")
	require.Contains(t, shown.String(), " connections")
	for _, line := range lines {
		require.Less(t, len(line), 20, "%q", line)
	}
}
