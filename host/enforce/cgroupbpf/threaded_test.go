//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/enforce/internal/netspace"
)

// A threaded cgroup does not say which processes it has. Their network namespaces are known
// all the same, and left with the last of them.
func TestThreadedCgroup(t *testing.T) {
	s := namespaceSite(t)
	inside := filepath.Join(s.cgroup, "threads")
	require.NoError(t, os.Mkdir(inside, 0o700))
	t.Cleanup(func() {
		require.Eventually(t, func() bool { return os.Remove(inside) == nil }, time.Minute, time.Millisecond)
	})
	require.NoError(t, os.WriteFile(filepath.Join(inside, "cgroup.type"), []byte("threaded"), 0))
	_, err := os.ReadFile(filepath.Join(inside, "cgroup.procs"))
	require.ErrorIs(t, err, unix.EOPNOTSUPP)

	first, second := s.start(t, unix.CLONE_NEWNET, "up/", "stdin/"), (*helper)(nil)
	require.Equal(t, "up", first.line())
	first.inSameNetwork(func() { second = s.start(t, 0, "stdin/", "tcp/198.51.100.7:80", "stdin/") })
	for _, h := range []*helper{first, second} {
		require.NoError(t, os.WriteFile(filepath.Join(inside, "cgroup.procs"), []byte(strconv.Itoa(h.cmd.Process.Pid)), 0))
	}
	s.opts.Cgroup = inside
	a := s.attach(t)
	defer a.Close()
	pids, err := a.processes()
	require.NoError(t, err)
	require.ElementsMatch(t, []int{first.cmd.Process.Pid, second.cmd.Process.Pid}, pids)
	require.Len(t, a.allHomes(), 2)
	require.Equal(t, []string{"told"}, first.end())
	require.Never(t, func() bool { return len(a.allHomes()) < 2 }, 200*time.Millisecond, time.Millisecond, "the second is there")
	require.Equal(t, []string{"told", "tcp from 198.51.100.7:80", "told"}, second.end())
	require.Eventually(t, func() bool { return len(a.allHomes()) == 1 }, time.Minute, time.Millisecond, "nobody is in it any more")
}

// inSameNetwork runs f where the helper is.
func (h *helper) inSameNetwork(f func()) {
	space, err := os.Open("/proc/" + strconv.Itoa(h.cmd.Process.Pid) + "/ns/net")
	require.NoError(h.t, err)
	defer space.Close()
	require.NoError(h.t, netspace.Within(int(space.Fd()), func() error { f(); return nil }))
}

// Who cannot be asked for want of descriptors is not taken for gone.
func TestStaysInANamespaceWithoutDescriptors(t *testing.T) {
	s := namespaceSite(t)
	first, second := s.start(t, unix.CLONE_NEWNET, "up/", "stdin/"), (*helper)(nil)
	require.Equal(t, "up", first.line())
	first.inSameNetwork(func() { second = s.start(t, 0, "stdin/") })
	a := s.attach(t)
	defer a.Close()
	require.Len(t, a.allHomes(), 2)
	restore := enforcetest.WithoutDescriptors()
	defer func() { restore() }()
	require.ErrorIs(t, ended(t.Context(), os.Getpid()), unix.EMFILE)
	require.Equal(t, []string{"told"}, first.end())
	require.Never(t, func() bool { return len(a.allHomes()) < 2 }, 300*time.Millisecond, time.Millisecond)
	restore()
	require.Equal(t, []string{"told"}, second.end())
	require.Eventually(t, func() bool { return len(a.allHomes()) == 1 }, time.Minute, time.Millisecond, "nobody is in it any more")
}
