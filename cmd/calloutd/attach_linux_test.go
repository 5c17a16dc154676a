package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// newCgroup makes a cgroup, and says how a command is started in it.
func newCgroup(t *testing.T) (dir string, in *syscall.SysProcAttr) {
	t.Helper()
	root := ""
	for _, dir := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			root = dir
		}
	}
	if root == "" || os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("CI runs as root with a cgroup v2 hierarchy")
		}
		t.Skip("needs root and a cgroup v2 hierarchy")
	}
	dir, err := os.MkdirTemp(root, "calloutd-test-")
	require.NoError(t, err)
	t.Cleanup(func() { os.Remove(dir) })
	f, err := os.Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return dir, &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
}

// A command in the cgroup is redirected as one under run is.
func TestAttach(t *testing.T) {
	need(t, "curl")
	cgroup, in := newCgroup(t)
	warm(t)
	daemon := exec.CommandContext(t.Context(), "calloutd", "attach", "--policy", quickstart, "--cgroup", cgroup)
	stderr, err := daemon.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, daemon.Start())
	line, err := bufio.NewReader(stderr).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, "attached to "+cgroup)

	curl := exec.CommandContext(t.Context(), "curl", "-s", "http://198.51.100.7/")
	curl.SysProcAttr = in
	out, err := curl.Output()
	require.NoError(t, err)
	require.Contains(t, string(out), `"original_destination":"198.51.100.7:80"`)
	require.True(t, strings.Contains(string(out), `"redirect_state":"redirected-by-self"`) && strings.Contains(string(out), "/curl"), "%s", out)

	require.NoError(t, daemon.Process.Signal(os.Interrupt))
	require.NoError(t, daemon.Wait())
}
