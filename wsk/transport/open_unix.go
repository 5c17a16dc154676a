//go:build unix && !solaris && !linux

package transport

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// stream opens a TCP socket that does not block and that no child inherits. Not
// every system can do that in one call.
func stream(family int) (int, error) {
	syscall.ForkLock.RLock()
	fd, err := unix.Socket(family, unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return -1, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
