package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// until reads lines until one begins so, and returns those before it.
func until(t *testing.T, s *bufio.Scanner, begins string) (before string) {
	t.Helper()
	for s.Scan() {
		if strings.HasPrefix(s.Text(), begins) {
			return before
		}
		before += s.Text() + "\n"
	}
	require.Fail(t, "the output ended", "before %q: %s", begins, before)
	return ""
}

func TestWatchRunsTheCasesAgainWhenSomethingChanges(t *testing.T) {
	dir, beside := t.TempDir(), t.TempDir()
	write := func(name, text string) { // It is there at once: what takes longer is two changes.
		tmp := filepath.Join(beside, name)
		require.NoError(t, os.WriteFile(tmp, []byte(text), 0o600))
		require.NoError(t, os.Rename(tmp, filepath.Join(dir, name)))
	}
	policy := "version: 1\nfilters: [{name: a, layer: ALE_AUTH_CONNECT, action: ACTION}]\n"
	write("policy.yaml", strings.Replace(policy, "ACTION", "permit", 1))
	write("policy_test.yaml", "version: 1\ncases: [{name: one, to: '192.0.2.1:9', expect: {action: permit}}]\n")
	cmd := exec.CommandContext(t.Context(), "calloutd", "test", "--watch", dir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	errs, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	s := bufio.NewScanner(out)
	require.Contains(t, until(t, s, "watching 1 folder;"), "ok   1 case")
	write("policy.yaml", strings.Replace(policy, "ACTION", "block", 1))
	require.Contains(t, until(t, s, "watching 1 folder;"), "FAIL 1 of 1 cases")
	write("policy.yaml", "version: 1\nfilters: [\n")
	until(t, s, "watching 1 folder;")
	said := bufio.NewScanner(errs)
	require.True(t, said.Scan())
	require.Contains(t, said.Text(), "policy.yaml:")
	write("policy.yaml", strings.Replace(policy, "ACTION", "permit", 1))
	require.Contains(t, until(t, s, "watching 1 folder;"), "ok   1 case")
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.NoError(t, cmd.Wait(), "an interrupt is its end")
}
