package enforcetest

import (
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// IsRead waits until what has come to a socket is read: the kernel has room for more.
func IsRead(t testing.TB, c *net.UDPConn) {
	t.Helper()
	none(t, c, unix.SIOCINQ)
}

// IsAcknowledged waits until what was written has arrived at the other end, whose kernel has said so.
func IsAcknowledged(t testing.TB, c *net.TCPConn) {
	t.Helper()
	none(t, c, unix.SIOCOUTQ)
}

// none waits until a queue of a socket is empty.
func none(t testing.TB, c syscall.Conn, queue uint) {
	t.Helper()
	raw, err := c.SyscallConn()
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		n := 0
		require.NoError(t, raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), queue) }))
		require.NoError(t, err)
		return n == 0
	}, time.Minute, time.Millisecond)
}
