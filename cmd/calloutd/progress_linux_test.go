package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

func TestATerminalSeesHowFarADiffIs(t *testing.T) {
	file := flightOf(t, 3000)
	cmd := exec.CommandContext(t.Context(), "calloutd", "diff", quickstart, forward, "--over", file)
	cmd.Env = append(os.Environ(), "TERM=xterm")
	var out bytes.Buffer
	cmd.Stdout = &out
	terminal, theirs, err := pty.Open()
	require.NoError(t, err)
	defer terminal.Close()
	cmd.Stderr = theirs
	require.NoError(t, cmd.Start())
	require.NoError(t, theirs.Close())
	var shown bytes.Buffer
	_, _ = shown.ReadFrom(terminal) // It ends with an error when the other end is closed.
	require.NoError(t, cmd.Wait())
	require.Regexp(t, `\[#*\.*\] +\d+ %  [\d,]+ connections`, shown.String())
	require.Regexp(t, `of 3,000 connections change\n$`, out.String())
	require.True(t, bytes.HasSuffix(shown.Bytes(), []byte("\r\x1b[K")), "the bar is taken away")
}
