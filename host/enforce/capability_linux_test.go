package enforce

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestProbe(t *testing.T) {
	for _, c := range Probe() {
		t.Logf("%-45s %-11s supported=%v %s", c.Name, c.Need, c.Supported, c.Detail)
		require.NotEmpty(t, c.Detail)
		require.Equal(t, c.Supported, c.Why == "")
	}
}

func TestMissing(t *testing.T) {
	cs := []Capability{{Name: "a", Command: CommandRun, Need: Optional}, {Name: "o", Command: CommandAttach, Need: Required},
		{Name: "b", Command: CommandRun, Need: Required, MinimumKernel: "9.9", Why: "no"}}
	err := Missing(cs, CommandRun)
	require.True(t, errors.Is(err, ErrNotSupported))
	require.EqualError(t, err, "b is not supported on this system (needs Linux 9.9): no")
	cs[2].Supported = true
	require.NoError(t, Missing(cs, CommandRun))
	require.Error(t, Missing(cs, CommandAttach))
}

// What helps depends on what the system said and on how it is set up.
func TestRemedy(t *testing.T) {
	proc := t.TempDir() + "/"
	set := func(file, value string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(proc+file), 0o755))
		require.NoError(t, os.WriteFile(proc+file, []byte(value+"\n"), 0o644))
	}
	require.Contains(t, remedyUnder(proc, UserNotif, unix.EPERM), "container")
	require.Contains(t, remedyUnder(proc, PidfdGetfd, unix.EPERM), "SYS_PTRACE")
	require.Contains(t, remedyUnder(proc, LandlockTCP, unix.EOPNOTSUPP), "lsm=")
	require.Empty(t, remedyUnder(proc, LandlockTCP, unix.ENOSYS), "only a newer kernel helps")
	require.Contains(t, remedyUnder(proc, UserNS, unix.EPERM), "container")
	set(maxUserNS, "0")
	require.Contains(t, remedyUnder(proc, UserNS, unix.ENOSPC), "user.max_user_namespaces")
	set(debianUserNS, "0")
	require.Contains(t, remedyUnder(proc, UserNS, unix.EPERM), "kernel.unprivileged_userns_clone=1")
	set(ubuntuUserNS, "1")
	require.Contains(t, remedyUnder(proc, UserNS, unix.EPERM), "kernel.apparmor_restrict_unprivileged_userns=0")
}

// Yama's ptrace_scope forbids a process to look even into its children from 2 on.
func TestDescendants(t *testing.T) {
	for scope, c := range map[string]struct{ privileged, may bool }{
		"": {false, true}, "0": {false, true}, "1": {false, true}, "2": {false, false}, "2 ": {true, true}, "3": {true, false},
	} {
		err := descendants(scope, c.privileged)
		require.Equal(t, c.may, err == nil, "%q: %v", scope, err)
	}
}
