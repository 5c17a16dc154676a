package main

import (
	"bufio"
	"fmt"
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
	// The report is no change, or there would be runs without end.
	cmd := exec.CommandContext(t.Context(), "calloutd", "test", "--watch", "--junit", filepath.Join(dir, "report.xml"), dir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	errs, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	s := bufio.NewScanner(out)
	require.Contains(t, until(t, s, "watching for changes;"), "ok   1 case")
	write("policy.yaml", strings.Replace(policy, "ACTION", "block", 1))
	require.Contains(t, until(t, s, "watching for changes;"), "FAIL 1 of 1 cases")
	write("policy.yaml", "version: 1\nfilters: [\n")
	until(t, s, "watching for changes;")
	said := bufio.NewScanner(errs)
	require.True(t, said.Scan())
	require.Contains(t, said.Text(), "policy.yaml:")
	write("policy.yaml", strings.Replace(policy, "ACTION", "permit", 1))
	require.Contains(t, until(t, s, "watching for changes;"), "ok   1 case")
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.NoError(t, cmd.Wait(), "an interrupt is its end")
}

func TestWatchOfWhatIsNotThereSaysSo(t *testing.T) {
	r := calloutd(t, "test", "--watch", filepath.Join(t.TempDir(), "none", "policy.yaml"))
	require.Equal(t, 125, r.code)
	require.Contains(t, r.stderr, "--watch: stat ")
}

// What cannot be built, or is in another folder, is watched too.
func TestWatchFollowsWhatAPolicyNames(t *testing.T) {
	dir, lists := t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "policy.yaml"), fmt.Appendf(nil, "version: 1\nsets: [{id: far, file: %s}]\n"+
		"filters: [{name: a, layer: ALE_AUTH_CONNECT, action: block}]\n", filepath.Join(lists, "far")), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "policy_test.yaml"), []byte("version: 1\ncases: [{name: one, to: '192.0.2.1:9', expect: {action: block}}]\n"), 0o600))
	cmd := exec.CommandContext(t.Context(), "calloutd", "test", "--watch", dir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	s := bufio.NewScanner(out)
	until(t, s, "watching for changes;")
	require.NoError(t, os.WriteFile(filepath.Join(lists, "far"), []byte("192.0.2.0/24\n"), 0o600))
	for !strings.Contains(until(t, s, "watching for changes;"), "ok   1 case") { // It may be heard of when it is still empty.
	}
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.NoError(t, cmd.Wait())
}
