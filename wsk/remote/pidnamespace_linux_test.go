package remote_test

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/remote"
	"github.com/calloutd/calloutd/wsk/wsktest"
)

const inside = "CALLOUTD_TEST_PID_NAMESPACE"

// Under the number of a client the /proc of another PID namespace has another program,
// and its path would be decided by.
func TestServiceNeedsItsOwnProc(t *testing.T) {
	if os.Getenv(inside) != "" {
		_, err := remote.New(remote.Options{ALE: wsktest.Open(t, wsk.Debug{}).ALE})
		require.EqualError(t, err, "remote: which program asks cannot be told: /proc does not show this process: it is that of another PID namespace")
		return
	}
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("CI runs as root")
		}
		t.Skip("needs root for a PID namespace")
	}
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	c.Env = append(os.Environ(), inside+"=1", "GORACE=atexit_sleep_ms=0") // or it takes a second
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name(), "it ran")
}
