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

// What is pinned is taken away without a policy, so also when none loads.
func TestAttachDetach(t *testing.T) {
	cgroup, _ := newCgroup(t)
	pin := t.TempDir()
	require.NoError(t, syscall.Mount("bpf", pin, "bpf", 0, ""))
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(pin, 0)) })
	_, end := background(t, "attached to", "attach", "--policy", quickstart, "--cgroup", cgroup, "--pin", pin)
	end()
	left := func() []string { dirs, _ := filepath.Glob(pin + "/calloutd-*"); return dirs }
	require.Len(t, left(), 1)

	r := calloutd(t, "attach", "--detach", "--cgroup", cgroup)
	require.Contains(t, r.stderr, "--pin says where")
	r = calloutd(t, "attach", "--detach", "--cgroup", cgroup, "--pin", pin)
	require.Zero(t, r.code, r.stderr)
	require.Empty(t, left())
	r = calloutd(t, "attach", "--detach", "--cgroup", cgroup, "--pin", pin)
	require.Contains(t, r.stderr, "nothing of calloutd is pinned in "+pin)
	r = calloutd(t, "attach", "--cgroup", cgroup, "--pin", pin)
	require.Contains(t, r.stderr, "policy")
}

// A container's program is redirected to the policy's proxies, which are not in its
// network namespace.
func TestAttachContainers(t *testing.T) {
	need(t, "curl")
	need(t, "ip")
	cgroup, in := newCgroup(t)
	warm(t)
	_, end := background(t, "attached to", "attach", "--policy", quickstart, "--cgroup", cgroup)
	in.Cloneflags = syscall.CLONE_NEWNET
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `ip link set lo up
until curl -s --max-time 60 http://198.51.100.7/; do sleep 0.1; done`)
	cmd.SysProcAttr = in
	r := finish(t, cmd)
	require.Contains(t, r.stdout, `"original_destination":"198.51.100.7:80"`, r.stderr)
	require.Contains(t, r.stdout, "/curl")
	end()
}
