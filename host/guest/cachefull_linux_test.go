package guest_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A limit of the process stands for a full disk; of one of its own, since go test writes
// a file meanwhile, too.
func TestAFullDiskCostsTimeOnly(t *testing.T) {
	const full = "CALLOUTD_TEST_FULL_DISK"
	if os.Getenv(full) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), full+"=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: "+t.Name())
		return
	}
	dir := t.TempDir()
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 64, Max: 64}))
	loadIn(t, dir, "good")
	require.Empty(t, meteredFiles(t, dir))
}
