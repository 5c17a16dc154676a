//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// hangs connects so often to a port of its own where nobody accepts: beyond calloutd the
// connections hang.
func hangs(times string) string {
	l := socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err := unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err.Error()
	}
	at, err := unix.Getsockname(l)
	if err == nil {
		err = unix.Listen(l, 0)
	}
	if err != nil {
		return err.Error()
	}
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(at.(*unix.SockaddrInet4).Port))
	for n, _ := strconv.Atoi(times); n > 0; n-- {
		if err := connectTo(socket(unix.AF_INET, unix.SOCK_STREAM, 0), to); err != nil {
			return err.Error()
		}
	}
	return "hang"
}

// Connections that programs of another network namespace begin, and that hang, take no
// thread each: at 10,000 a process of Go ends, and the cgroup would be decided by nobody.
func TestConnectionsThatHangTakeNoThreads(t *testing.T) {
	const connections = 200
	s := namespaceSite(t)
	x := s.attach(t)
	threads := func() int {
		all, err := os.ReadDir("/proc/self/task")
		require.NoError(t, err)
		return len(all)
	}
	before := threads() // They never become less.
	h := s.start(t, unix.CLONE_NEWNET, "up/", "patiently/tcp/127.0.0.1:9", "hangs/"+strconv.Itoa(connections), "stdin/")
	for _, want := range []string{"up", "ECONNRESET", "hang"} {
		require.Equal(t, want, h.line())
	}
	hanging := func() int { // Some are in the backlog.
		sockets, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", h.cmd.Process.Pid))
		require.NoError(t, err)
		return strings.Count(string(sockets), " 02 00000001:")
	}
	require.Eventually(t, func() bool { return hanging() >= connections-2 }, time.Minute, 10*time.Millisecond)
	require.Less(t, threads()-before, connections/2)
	require.NoError(t, x.Close())
	require.Zero(t, hanging())
	require.Equal(t, []string{"told"}, h.end())
}
