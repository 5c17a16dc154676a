package carry

import (
	"net"

	"golang.org/x/sys/unix"
)

// Established reports whether the other end of a connection is still there. What the kernel
// knew about one that was reset may be gone.
func Established(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	const tcpEstablished = 1
	there := false
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		there = err == nil && info.State == tcpEstablished
	})
	return err == nil && there
}
