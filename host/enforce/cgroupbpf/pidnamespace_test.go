//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/fwpm"
)

const inside = "CALLOUTD_TEST_PID_NAMESPACE"

// The kernel's programs number processes as the first PID namespace does. In another one
// /proc has another program under that number, and would have it decided by its path; and
// calloutd would not know its own connections. Nothing is attached there.
func TestAttachRefusesInAPIDNamespace(t *testing.T) {
	s := newSite(t, &fwpm.Policy{}, nil)
	if proc := os.Getenv(inside); proc != "" {
		if proc == "own" {
			require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
			require.NoError(t, unix.Mount("proc", "/proc", "proc", 0, ""))
		}
		a, err := Attach(t.Context(), s.opts)
		require.True(t, a == nil, "it is attached")
		require.ErrorIs(t, err, enforce.ErrNotSupported)
		require.ErrorContains(t, err, "PID namespace")
		found := Probe()
		at := slices.IndexFunc(found, func(c enforce.Capability) bool { return c.Name == "the first PID namespace" })
		require.NotEqual(t, -1, at)
		first := found[at]
		require.False(t, first.Supported)
		require.Equal(t, enforce.Required, first.Need)
		require.Contains(t, first.Why, map[string]string{"own": "this is a PID namespace of its own", "of another": "/proc does not show this process"}[proc])
		require.Equal(t, map[string]string{"own": "run it outside, as docker run --pid=host does"}[proc], first.Remedy)
		return
	}
	for _, proc := range []string{"own", "of another"} {
		c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		c.Env = append(os.Environ(), inside+"="+proc, "GORACE=atexit_sleep_ms=0") // or each takes a second
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
		out, err := c.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: "+t.Name(), "it ran")
	}
}
