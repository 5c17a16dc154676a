package transport

import "golang.org/x/sys/unix"

// stream opens a TCP socket that does not block and that no child inherits.
func stream(family int) (int, error) {
	return unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
}
